"""`KerasImageFileTransformer` against Keras' own `predict`."""

from __future__ import annotations

import pickle
import shutil
import threading

import numpy as np
import pytest
from pyspark.errors import IllegalArgumentException
from pyspark.ml import PipelineModel
from pyspark.ml.linalg import VectorUDT

from tests.support.stages import computed
from toolkit.sparkdl import ImageSchema
from toolkit.sparkdl.computing import _loaded
from toolkit.sparkdl.keras_image import KerasImageFileTransformer, _ImageFiles
from toolkit.sparkdl.keras_models import pickled, share_model

URIS = "uri string"


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
def predicted(classifier, pictures):
    """Return what Keras makes of the pictures."""
    return classifier.predict(np.concatenate([make_loader()(uri) for uri in pictures]), verbose=0)


@pytest.fixture(scope="module")
def convolution(keras, tmp_path_factory):
    """Return a model of images of any size, and its file."""
    keras.utils.set_random_seed(2)
    model = keras.Sequential([keras.Input((None, None, 3)), keras.layers.Conv2D(3, 3)])
    return model, save(model, tmp_path_factory.mktemp("convolution") / "model.keras")


@pytest.fixture(scope="module")
def frame(spark, pictures):
    return spark.createDataFrame([(uri,) for uri in pictures], URIS).coalesce(1)


def transformer(model_file, **arguments):
    defaults = {"inputCol": "uri", "outputCol": "scores", "imageLoader": make_loader()}
    return KerasImageFileTransformer(modelFile=model_file, **defaults | arguments)


@pytest.mark.parametrize(
    ("ending", "batch"), [(".keras", True), (".keras", False), (".h5", True), (".hdf5", False)]
)
def test_vectors_are_those_of_predict(
    spark, classifier, pictures, predicted, tmp_path, ending, batch
):
    file = tmp_path / f"model{'.h5' if ending == '.hdf5' else ending}"
    classifier.save(file)
    model_file = str(file.rename(tmp_path / f"model{ending}"))
    stage = transformer(model_file, imageLoader=make_loader(batch=batch))
    found = computed(stage, [(uri,) for uri in pictures], URIS)
    np.testing.assert_allclose([each.toArray() for each in found], predicted, atol=1e-5)


def test_a_saved_pipeline_computes_the_same_on_executors(
    spark, storage, classifier_file, pictures, predicted, tmp_path
):
    file = tmp_path / "model.keras"
    shutil.copy(classifier_file, file)
    stage = transformer(str(file))
    root = f"s3a://{storage.name}/keras/pipeline"
    PipelineModel([stage]).write().overwrite().save(root)
    file.unlink()
    (loaded,) = PipelineModel.load(root).stages
    assert (loaded.uid, loaded.getOutputCol()) == (stage.uid, "scores")
    rows = [*((uri,) for uri in pictures), (None,)]
    found = loaded.transform(spark.createDataFrame(rows, URIS).coalesce(1))
    assert found.columns == ["uri", "scores"]
    assert isinstance(found.schema["scores"].dataType, VectorUDT)
    *scores, nothing = (row.scores for row in found.collect())
    np.testing.assert_allclose([each.toArray() for each in scores], predicted, atol=1e-5)
    assert nothing is None
    assert loaded.badRows == 1


def test_images_have_the_channels_of_the_model(spark, convolution, pictures):
    model, file = convolution
    stage = transformer(file, outputMode="image")
    kind = stage.transform(spark.createDataFrame([], URIS)).schema["scores"].dataType
    assert kind == ImageSchema.columnSchema
    (row,) = computed(stage, [(pictures[0],)], URIS)
    assert (row.height, row.width, row.nChannels, row.mode) == (6, 6, 3, 21)
    expected = model.predict(make_loader()(pictures[0]), verbose=0)[0]
    values = np.frombuffer(row.data, np.float32).reshape(6, 6, 3)
    np.testing.assert_allclose(values, expected, atol=1e-5)


def test_a_free_input_takes_images_of_several_sizes(spark, convolution):
    def of_any_size(uri):
        import numpy as np

        return np.full((int(uri), int(uri) + 1, 3), int(uri), "float32")

    model, file = convolution
    stage = transformer(file, imageLoader=of_any_size)
    sides = [4, 6, 6, 2, 0, 4]
    results = computed(stage, [(str(side),) for side in sides], URIS)
    for side, found in zip(sides, results, strict=True):
        if side < 3:  # less than the kernel
            assert found is None
        else:
            expected = model(of_any_size(str(side))[None], training=False)
            np.testing.assert_allclose(
                found.toArray(), np.asarray(expected).reshape(-1), rtol=1e-4, atol=1e-5
            )
    assert stage.badRows == 2


def test_bad_rows_become_null_and_are_counted(spark, pictures, classifier_file):
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

    stage = transformer(classifier_file, imageLoader=load)
    bad = ["raise", "none", None, "small", "two", "text", "/no/such/file"]
    assert stage.badRows == 0
    found = computed(stage, [(name,) for name in (pictures[0], *bad, pictures[1])], URIS)
    assert [each is not None for each in found] == [True, *[False] * 7, True]
    assert stage.badRows == 7


def test_equal_programs_are_loaded_once(spark, classifier_file):
    def program():
        return _ImageFiles(share_model(spark, classifier_file), pickled(make_loader(), "It"))

    first, again = program(), pickle.loads(pickle.dumps(program()))
    assert _loaded(first) is _loaded(again)


def test_what_is_wrong_is_told_before_anything_runs(keras, frame, classifier_file, tmp_path):
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
        transformer(classifier_file, imageLoader=refuse, outputMode="image").transform(frame)
    with pytest.raises(ValueError, match="imageLoader cannot be sent"):
        transformer(classifier_file, imageLoader=lambda _: frame).transform(frame)
    with pytest.raises(IllegalArgumentException, match="image does not exist"):
        transformer(classifier_file, imageLoader=refuse, inputCol="image").transform(frame)
    with pytest.raises(IllegalArgumentException, match="already exists"):
        transformer(classifier_file, imageLoader=refuse, outputCol="uri").transform(frame)
    numbers = frame.selectExpr("length(uri) AS uri")
    with pytest.raises(IllegalArgumentException, match="must be URIs"):
        transformer(classifier_file, imageLoader=refuse).transform(numbers)


def test_arguments_are_keywords_with_the_defaults_of_sparkdl(spark):
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


def test_a_stage_is_saved_whole_or_not_at_all(spark, classifier, pictures, tmp_path):
    root = (tmp_path / "saved").as_uri()
    file = tmp_path / "model.h5"
    stage = transformer(save(classifier, file))
    rows = [(pictures[0],)]
    expected = computed(stage, rows, URIS)
    stage.save(root)
    stage.write().overwrite().save(root)
    file.unlink()
    with pytest.raises(Exception, match="lock"):
        stage.copy({stage.imageLoader: threading.Lock()}).write().overwrite().save(root)
    loaded = KerasImageFileTransformer.load(root)
    assert (loaded.uid, loaded.getOutputCol()) == (stage.uid, "scores")
    assert loaded.getModelFile().endswith(".h5")
    assert computed(loaded, rows, URIS) == expected
