"""`registerKerasImageUDF`: Keras models as functions of SQL, against `predict`."""

from __future__ import annotations

import numpy as np
import pytest
from pyspark.sql import SparkSession

from toolkit.errors import RequestError
from toolkit.sparkdl import ImageSchema, imageIO
from toolkit.sparkdl.keras_models import import_keras
from toolkit.sparkdl.udf import registerKerasImageUDF

pytestmark = pytest.mark.slow  # every Python worker imports TensorFlow

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


def table(spark, rows):
    """Make the table ``images`` of arrays in the order of OpenCV, and of structs."""
    structs = [
        (imageIO.imageArrayToStruct(each) if isinstance(each, np.ndarray) else each,)
        for each in rows
    ]
    frame = spark.createDataFrame(structs, ImageSchema.imageSchema).coalesce(1)
    frame.createOrReplaceTempView("images")
    return frame


def scores(spark, name):
    return [
        row.scores for row in spark.sql(f"SELECT {name}(image) AS scores FROM images").collect()
    ]


@pytest.mark.parametrize("given", ["model", "keras", "h5"])
def test_a_model_or_its_file_gives_what_predict_gives_for_rgb(spark, pixels, tmp_path, given):
    model = make_model()
    source = model
    if given != "model":
        source = str(tmp_path / f"model.{given}")
        model.save(source)
    frame = table(spark, pixels[..., ::-1])
    function = registerKerasImageUDF("scored", source)
    found = spark.sql("SELECT scored(image) AS scores FROM images")
    assert found.schema["scores"].dataType.simpleString() == "array<float>"
    expected = model.predict(pixels.astype(np.float32), verbose=0).reshape(5, -1)
    np.testing.assert_allclose([row.scores for row in found.collect()], expected, atol=1e-5)
    again = [row[0] for row in frame.select(function("image")).collect()]
    np.testing.assert_allclose(again, expected, atol=1e-5)


def test_images_that_do_not_fit_become_null_and_are_counted(spark, pixels):
    small, gray = pixels[0, :3], pixels[0, ..., :1]
    floats = pixels[0, ..., ::-1].astype(np.float32)
    good = imageIO.imageArrayToStruct(pixels[0, ..., ::-1]).asDict()
    short = {**good, "data": good["data"][:-1]}
    undefined = {**good, "mode": -1, "height": -1, "width": -1, "nChannels": -1, "data": b""}
    table(spark, [good, small, gray, None, short, undefined, floats])
    function = registerKerasImageUDF("scored", make_model())
    found = scores(spark, "scored")
    assert [each is not None for each in found] == [True, *[False] * 5, True]
    assert function.badRows() == 5
    assert found[0] == pytest.approx(found[-1], abs=1e-5)


def test_four_channels_are_red_green_blue_alpha(spark):
    rgba = np.arange(SIDE * SIDE * 4, dtype=np.uint8).reshape(SIDE, SIDE, 4)
    model = make_model(channels=4)
    table(spark, [rgba[..., [2, 1, 0, 3]]])
    registerKerasImageUDF("scored", model)
    expected = model.predict(rgba[None].astype(np.float32), verbose=0).reshape(1, -1)
    np.testing.assert_allclose(scores(spark, "scored"), expected, atol=1e-5)


def test_a_preprocessor_gets_a_file_and_gives_the_input(spark, pixels):
    def preprocess(path):
        import numpy as np
        from PIL import Image

        with Image.open(path) as image:
            if image.size == (1, 1):
                raise ValueError("too small")
            return np.asarray(image.convert("RGB").resize((4, 4), Image.Resampling.NEAREST)) / 2

    model = make_model()
    large = pixels[:, :, ::-1].repeat(2, axis=1).repeat(2, axis=2)[..., ::-1]
    table(spark, [*large, np.zeros((1, 1, 3), np.uint8), large[0].astype(np.float32)])
    registerKerasImageUDF("preprocessed", model, preprocess)
    found = scores(spark, "preprocessed")
    assert found[5:] == [None, None]
    expected = model.predict(pixels[:, :, ::-1] / 2, verbose=0).reshape(5, -1)
    np.testing.assert_allclose(found[:5], expected, atol=1e-5)


def test_the_same_name_is_replaced(spark, pixels):
    table(spark, pixels[:1, ..., ::-1])
    registerKerasImageUDF("scored", make_model())
    first = scores(spark, "scored")
    registerKerasImageUDF("scored", make_model(seed=2))
    assert scores(spark, "scored") != first


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
