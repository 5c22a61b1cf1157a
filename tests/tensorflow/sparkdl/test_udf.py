"""`registerKerasImageUDF`: Keras models as functions of SQL, against `predict`."""

from __future__ import annotations

import numpy as np
import pytest
from pyspark.sql import SparkSession

from tests.support.stages import call
from toolkit.errors import RequestError
from toolkit.sparkdl import ImageSchema, imageIO
from toolkit.sparkdl.keras_models import import_keras
from toolkit.sparkdl.udf import registerKerasImageUDF

SIDE = 4


def make_model(*, channels=3, seed=1):
    keras = import_keras()
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((SIDE, SIDE, channels)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(2, 3),
        ]
    )


@pytest.fixture(scope="module")
def pixels():
    """Return images as RGB."""
    return np.random.default_rng(0).integers(0, 256, (5, SIDE, SIDE, 3), np.uint8)


def structs(images):
    """Return rows of arrays in the order of OpenCV, and of structs."""
    return [
        (imageIO.imageArrayToStruct(each) if isinstance(each, np.ndarray) else each,)
        for each in images
    ]


def scores(function, images):
    """Return what a function gives for images, computed in this process."""
    return call(function, structs(images), ImageSchema.imageSchema)


@pytest.fixture(scope="module")
def model():
    return make_model()


@pytest.fixture(scope="module")
def expected(model, pixels):
    return model.predict(pixels.astype(np.float32), verbose=0).reshape(len(pixels), -1)


@pytest.mark.parametrize("ending", ["keras", "h5"])
def test_a_file_gives_what_predict_gives_for_rgb(spark, model, pixels, expected, tmp_path, ending):
    file = str(tmp_path / f"model.{ending}")
    model.save(file)
    found = scores(registerKerasImageUDF("scored", file), pixels[..., ::-1])
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_model_computes_in_sql_and_on_columns_until_its_name_is_replaced(
    spark, model, pixels, expected
):
    frame = spark.createDataFrame(structs([*pixels[..., ::-1], None]), ImageSchema.imageSchema)
    frame.coalesce(1).createOrReplaceTempView("images")
    function = registerKerasImageUDF("scored", model)
    found = spark.sql("SELECT scored(image) AS scores FROM images")
    assert found.schema["scores"].dataType.simpleString() == "array<float>"
    *in_sql, nothing = (row.scores for row in found.collect())
    np.testing.assert_allclose(in_sql, expected, atol=1e-5)
    assert nothing is None
    assert function.badRows() == 1

    on_column = [row[0] for row in spark.table("images").select(function("image")).collect()]
    assert on_column == [*in_sql, None]

    other = make_model(seed=2)
    registerKerasImageUDF("scored", other)
    (replaced, *_) = spark.sql("SELECT scored(image) AS scores FROM images").collect()
    (others,) = other.predict(pixels[:1].astype(np.float32), verbose=0)
    np.testing.assert_allclose(replaced.scores, others.reshape(-1), atol=1e-5)


def test_images_that_do_not_fit_become_null_and_are_counted(spark, model, pixels):
    small, gray = pixels[0, :3], pixels[0, ..., :1]
    floats = pixels[0, ..., ::-1].astype(np.float32)
    good = imageIO.imageArrayToStruct(pixels[0, ..., ::-1]).asDict()
    short = {**good, "data": good["data"][:-1]}
    undefined = {**good, "mode": -1, "height": -1, "width": -1, "nChannels": -1, "data": b""}
    function = registerKerasImageUDF("scored", model)
    found = scores(function, [good, small, gray, None, short, undefined, floats])
    assert [each is not None for each in found] == [True, *[False] * 5, True]
    assert function.badRows() == 5
    assert found[0] == pytest.approx(found[-1], abs=1e-5)


def test_four_channels_are_red_green_blue_alpha(spark):
    rgba = np.arange(SIDE * SIDE * 4, dtype=np.uint8).reshape(SIDE, SIDE, 4)
    model = make_model(channels=4)
    found = scores(registerKerasImageUDF("scored", model), [rgba[..., [2, 1, 0, 3]]])
    expected = model.predict(rgba[None].astype(np.float32), verbose=0).reshape(1, -1)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_preprocessor_gets_a_file_and_gives_the_input(spark, model, pixels):
    def preprocess(path):
        import numpy as np
        from PIL import Image

        with Image.open(path) as image:
            if image.size == (1, 1):
                raise ValueError("too small")
            return np.asarray(image.convert("RGB").resize((4, 4), Image.Resampling.NEAREST)) / 2

    large = pixels[:, :, ::-1].repeat(2, axis=1).repeat(2, axis=2)[..., ::-1]
    function = registerKerasImageUDF("preprocessed", model, preprocess)
    found = scores(function, [*large, np.zeros((1, 1, 3), np.uint8), large[0].astype(np.float32)])
    assert found[5:] == [None, None]
    expected = model.predict(pixels[:, :, ::-1] / 2, verbose=0).reshape(5, -1)
    np.testing.assert_allclose(found[:5], expected, atol=1e-5)


def test_what_is_wrong_is_told_at_once(spark, tmp_path, monkeypatch):
    keras = import_keras()
    with pytest.raises(TypeError, match="neither a Keras model nor"):
        registerKerasImageUDF("wrong", 3)
    with pytest.raises(TypeError, match="no function"):
        registerKerasImageUDF("wrong", make_model(), "load")
    with pytest.raises(ValueError, match=r"none\.h5 cannot be read"):
        registerKerasImageUDF("wrong", tmp_path / "none.h5")
    flat = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    with pytest.raises(ValueError, match=r"\(3,\), not \(height, width, channels\)"):
        registerKerasImageUDF("wrong", flat)
    with pytest.raises(ValueError, match="preprocessor cannot be sent"):
        registerKerasImageUDF("wrong", make_model(), lambda _: spark)
    assert not spark.catalog.functionExists("wrong")
    monkeypatch.setattr(SparkSession, "getActiveSession", lambda: None)
    with pytest.raises(RequestError, match="no Spark session"):
        registerKerasImageUDF("wrong", make_model())
