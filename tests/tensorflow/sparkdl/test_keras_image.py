"""`KerasImageFileTransformer` on the cluster, against Keras' own `predict`."""

from __future__ import annotations

import pickle
import threading

import numpy as np
import pytest
from PIL import Image
from pyspark.errors import IllegalArgumentException
from pyspark.ml import Pipeline, PipelineModel
from pyspark.ml.linalg import VectorUDT

from toolkit.sparkdl import ImageSchema
from toolkit.sparkdl.computing import _loaded
from toolkit.sparkdl.keras_image import KerasImageFileTransformer, _ImageFiles
from toolkit.sparkdl.keras_models import import_keras, pickled, share_model

pytestmark = pytest.mark.slow  # every Python worker imports TensorFlow

ROWS = 40  # more than one batch


def classifier():
    keras = import_keras()
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Conv2D(4, 3, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5),
            keras.layers.Flatten(),
            keras.layers.Dense(5, activation="softmax"),
        ]
    )


def free_convolution(filters=3):
    keras = import_keras()
    keras.utils.set_random_seed(2)
    return keras.Sequential([keras.Input((None, None, 3)), keras.layers.Conv2D(filters, 3)])


def save(model, path):
    model.save(path)
    return str(path)


def make_loader(*, side=8, batch=True):
    """Return a loader that executors get by value: they cannot import this module."""

    def load(uri):
        import numpy as np
        from PIL import Image as PillowImage

        with PillowImage.open(uri) as image:
            pixels = np.asarray(image.convert("RGB").resize((side, side)), "float32") / 127.5 - 1
        return pixels[None] if batch else pixels

    return load


def refuse(uri):
    raise AssertionError("the loader was called")


@pytest.fixture(scope="module")
def uris(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    found = []
    for number in range(ROWS):
        path = folder / f"{number}.png"
        Image.fromarray(random.integers(0, 256, (10, 12, 3), np.uint8)).save(path)
        found.append(str(path))
    return found


@pytest.fixture(scope="module")
def frame(spark, uris):
    return spark.createDataFrame([(uri,) for uri in uris], "uri string").coalesce(1)


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    return save(classifier(), tmp_path_factory.mktemp("model") / "model.keras")


def transformer(model_file, **arguments):
    defaults = {"inputCol": "uri", "outputCol": "scores", "imageLoader": make_loader()}
    return KerasImageFileTransformer(modelFile=model_file, **defaults | arguments)


def vectors(frame):
    return np.stack([row.scores.toArray() for row in frame.collect()])


@pytest.mark.parametrize("ending", [".keras", ".h5", ".hdf5"])
@pytest.mark.parametrize("batch", [True, False])
def test_vectors_are_those_of_predict(frame, uris, tmp_path, ending, batch):
    model = classifier()
    file = tmp_path / f"model{'.h5' if ending == '.hdf5' else ending}"
    model.save(file)
    found = transformer(
        str(file.rename(tmp_path / f"model{ending}")), imageLoader=make_loader(batch=batch)
    ).transform(frame)
    assert found.columns == ["uri", "scores"]
    assert isinstance(found.schema["scores"].dataType, VectorUDT)
    expected = model.predict(np.concatenate([make_loader()(uri) for uri in uris]), verbose=0)
    np.testing.assert_allclose(vectors(found), expected, atol=1e-5)


def test_images_have_the_channels_of_the_model(frame, uris, tmp_path):
    model = free_convolution()
    stage = transformer(save(model, tmp_path / "model.keras"), outputMode="image")
    found = stage.transform(frame)
    assert found.schema["scores"].dataType == ImageSchema.columnSchema
    row = found.collect()[0].scores  # `first` would end the worker
    assert (row.height, row.width, row.nChannels, row.mode) == (6, 6, 3, 21)
    expected = model.predict(make_loader()(uris[0]), verbose=0)[0]
    values = np.frombuffer(row.data, np.float32).reshape(6, 6, 3)
    np.testing.assert_allclose(values, expected, atol=1e-5)


def test_a_free_input_takes_images_of_several_sizes(spark, uris, tmp_path):
    def of_any_size(uri):
        import numpy as np

        return np.full((int(uri), int(uri) + 1, 3), int(uri), "float32")

    model = free_convolution()
    stage = transformer(save(model, tmp_path / "model.keras"), imageLoader=of_any_size)
    sides = [4, 6, 6, 2, 0, 4]
    frame = spark.createDataFrame([(str(side),) for side in sides], "uri string").coalesce(1)
    rows = [row.scores for row in stage.transform(frame).collect()]
    for side, found in zip(sides, rows, strict=True):
        if side < 3:  # less than the kernel
            assert found is None
        else:
            expected = model.predict(of_any_size(str(side))[None], verbose=0)
            np.testing.assert_allclose(found.toArray(), expected.reshape(-1), rtol=1e-4, atol=1e-5)
    assert stage.badRows == 2


def test_bad_rows_become_null_and_are_counted(spark, uris, model_file):
    good = make_loader()

    def load(uri):
        import numpy as np

        if uri == "raise":
            raise OSError("gone")
        results = {
            "none": None,
            "small": np.zeros((1, 7, 8, 3)),
            "two": np.zeros((2, 8, 8, 3)),
            "text": "no array",
        }
        return results[uri] if uri in results else good(uri)

    stage = transformer(model_file, imageLoader=load)
    names = [uris[0], "raise", "none", None, "small", "two", "text", "/no/such/file", uris[1]]
    frame = spark.createDataFrame([(name,) for name in names], "uri string").coalesce(1)
    assert stage.badRows == 0
    there = [row.scores is not None for row in stage.transform(frame).collect()]
    assert there == [True, *[False] * 7, True]
    assert stage.badRows == 7


def test_equal_programs_are_loaded_once(spark, model_file):
    def program():
        return _ImageFiles(share_model(spark, str(model_file)), pickled(make_loader(), "It"))

    first, again = program(), pickle.loads(pickle.dumps(program()))
    assert _loaded(first) is _loaded(again)


def test_what_is_wrong_is_told_before_anything_runs(frame, model_file, tmp_path):
    keras = import_keras()
    broken = tmp_path / "broken.keras"
    broken.write_bytes(b"nothing")
    inputs = [keras.Input((4,)), keras.Input((4,))]
    two = save(keras.Model(inputs, keras.layers.Add()(inputs)), tmp_path / "two.keras")
    forked = save(keras.Model(inputs[0], [inputs[0], inputs[0]]), tmp_path / "forked.keras")
    for file, message in [
        (tmp_path / "none.keras", r"none\.keras cannot be read: No such file"),
        (tmp_path / "model.pb", r"model\.pb is no Keras model file.*\.hdf5"),
        (broken, r"broken\.keras cannot be used"),
        (two, r"two\.keras.*2 input\(s\) and 1 output"),
        (forked, r"forked\.keras.*1 input\(s\) and 2 output"),
    ]:
        with pytest.raises(ValueError, match=message):
            transformer(str(file), imageLoader=refuse).transform(frame)
    with pytest.raises(ValueError, match=r"outputMode 'image'.*\(5,\)"):
        transformer(model_file, imageLoader=refuse, outputMode="image").transform(frame)
    with pytest.raises(ValueError, match="imageLoader cannot be sent"):
        transformer(model_file, imageLoader=lambda _: frame).transform(frame)
    with pytest.raises(IllegalArgumentException, match="image does not exist"):
        transformer(model_file, imageLoader=refuse, inputCol="image").transform(frame)
    with pytest.raises(IllegalArgumentException, match="already exists"):
        transformer(model_file, imageLoader=refuse, outputCol="uri").transform(frame)
    numbers = frame.selectExpr("length(uri) AS uri")
    with pytest.raises(IllegalArgumentException, match="must be URIs"):
        transformer(model_file, imageLoader=refuse).transform(numbers)


def test_arguments_are_keywords_with_the_defaults_of_sparkdl():
    stage = KerasImageFileTransformer()
    assert stage.getOutputMode() == "vector"
    assert not stage.isDefined("modelFile")
    assert not stage.isDefined("imageLoader")
    with pytest.raises(TypeError, match="keyword"):
        KerasImageFileTransformer("uri")
    with pytest.raises(TypeError, match="no function"):
        KerasImageFileTransformer(imageLoader="load")
    with pytest.raises(TypeError, match="vector, image"):
        KerasImageFileTransformer(outputMode="tensor")
    stage.setParams(inputCol="a", modelFile="b.h5").setImageLoader(refuse).setOutputMode("image")
    stage.setOutputCol("c").setModelFile("d.h5")
    assert (stage.getInputCol(), stage.getOutputCol()) == ("a", "c")
    assert (stage.getModelFile(), stage.getImageLoader()) == ("d.h5", refuse)


@pytest.mark.parametrize("place", ["local", "s3a"])
def test_stages_and_pipelines_save_and_load(frame, storage, tmp_path, place):
    root = (tmp_path / "saved").as_uri() if place == "local" else f"s3a://{storage.name}/keras"
    file = tmp_path / "model.h5"
    stage = transformer(save(classifier(), file))
    expected = vectors(stage.transform(frame))
    stage.write().overwrite().save(f"{root}/stage")
    stage.write().overwrite().save(f"{root}/stage")
    Pipeline(stages=[stage]).fit(frame).write().overwrite().save(f"{root}/pipeline")
    file.unlink()
    loaded = KerasImageFileTransformer.load(f"{root}/stage")
    assert (loaded.uid, loaded.getOutputCol()) == (stage.uid, "scores")
    assert loaded.getModelFile().endswith(".h5")
    np.testing.assert_array_equal(vectors(loaded.transform(frame)), expected)
    pipeline = PipelineModel.load(f"{root}/pipeline")
    np.testing.assert_array_equal(vectors(pipeline.transform(frame)), expected)


def test_what_cannot_be_saved_replaces_nothing(spark, tmp_path):
    root = (tmp_path / "stage").as_uri()
    stage = transformer(save(classifier(), tmp_path / "model.keras"))
    stage.save(root)
    with pytest.raises(Exception, match="lock"):
        stage.copy({stage.imageLoader: threading.Lock()}).write().overwrite().save(root)
    assert KerasImageFileTransformer.load(root).uid == stage.uid
