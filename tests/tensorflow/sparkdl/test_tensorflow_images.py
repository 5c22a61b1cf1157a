"""`TFImageTransformer` against TensorFlow itself."""

from __future__ import annotations

import numpy as np
import pytest
from pyspark.errors import IllegalArgumentException
from pyspark.ml import PipelineModel
from pyspark.ml.linalg import VectorUDT

from tests.support.stages import computed
from toolkit.sparkdl import ImageSchema, imageIO
from toolkit.sparkdl.tf_graph import TFInputGraph
from toolkit.sparkdl.tf_image import TFImageTransformer

RNG = np.random.default_rng(3)
COLOURS = [
    RNG.integers(0, 256, (*size, 3), np.uint8) for size in [(4, 6), (4, 6), (5, 3), (4, 6), (8, 8)]
]
FLOATS = RNG.random((4, 6, 3), np.float32)
GRAY = RNG.integers(0, 256, (4, 6, 1), np.uint8)
ALPHA = RNG.integers(0, 256, (4, 6, 4), np.uint8)


@pytest.fixture(scope="module")
def means(tf):
    """Return a function that weighs the channels of an image and gives their means."""
    weights = tf.Variable([1.0, 10.0, 100.0])

    @tf.function
    def compute(images):
        return tf.reduce_mean(weights * images, axis=[1, 2])

    return compute


def structs(images):
    return [(None if each is None else imageIO.imageArrayToStruct(each),) for each in images]


@pytest.fixture(scope="module")
def frame(spark):
    """Return a frame of images without rows."""
    return spark.createDataFrame([], ImageSchema.imageSchema)


def transformer(**parameters):
    columns = {"inputCol": "image", "outputCol": "result"}
    return TFImageTransformer(**({"channelOrder": "RGB"} | columns | parameters))


def vectors(stage, images):
    """Return what a stage gives for images, computed in this process."""
    found = computed(stage, structs(images), ImageSchema.imageSchema)
    return [None if each is None else each.toArray() for each in found]


@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_images_of_any_size_and_type_go_in_as_floats_in_the_order_asked_for(means, frame, order):
    stage = transformer(channelOrder=order, graph=means)
    result = stage.transform(frame)
    assert isinstance(result.schema["result"].dataType, VectorUDT)
    assert result.columns == ["image", "result"]
    ordered = [each[..., ::-1] if order == "RGB" else each for each in [*COLOURS, FLOATS]]
    expected = [means(each[None].astype(np.float32))[0] for each in ordered]
    np.testing.assert_allclose(vectors(stage, [*COLOURS, FLOATS]), expected, rtol=1e-5)
    assert stage.badRows == 0


def test_images_come_out_in_the_order_of_the_rows(tf, frame):
    spec = tf.TensorSpec([None, None, None, 3], tf.float32)
    graph = TFInputGraph.fromFunction(
        tf.function(lambda x: {"half": x / 2, "size": tf.shape(x)[:1]}), spec
    )
    stage = transformer(graph=graph, outputTensor="half:0", outputMode="image")
    assert stage.transform(frame).schema["result"].dataType == ImageSchema.columnSchema
    images = [*COLOURS, FLOATS]
    results = computed(stage, structs(images), ImageSchema.imageSchema)
    for result, image in zip(results, images, strict=True):
        assert imageIO.imageType(result).name == "CV_32FC3"
        found = imageIO.imageStructToArray(result)
        np.testing.assert_array_equal(found, image[..., ::-1].astype(np.float32) / 2)


def test_gray_and_alpha_keep_their_channels(tf, spark):
    spec = tf.TensorSpec([None, None, None, None], tf.float32)
    graph = TFInputGraph.fromFunction(tf.function(lambda x: x), spec)
    found = vectors(transformer(graph=graph), [GRAY, ALPHA, COLOURS[0]])
    expected = [GRAY, ALPHA[..., [2, 1, 0, 3]], COLOURS[0][..., ::-1]]
    for each, image in zip(found, expected, strict=True):
        np.testing.assert_array_equal(each, image.reshape(-1))


def test_gray_only_where_the_order_is_l(tf, spark):
    stage = transformer(channelOrder="L", graph=lambda gray: tf.reduce_max(gray, axis=[1, 2]))
    found = vectors(stage, [COLOURS[0], GRAY])
    assert stage.getGraph().input().shape == (None, None, None, 1)
    assert found == [None, [GRAY.max()]]
    assert stage.badRows == 1


def test_a_function_takes_the_channels_of_the_order_whichever_is_set_first(tf, tmp_path):
    stage = TFImageTransformer(inputCol="image", outputCol="result")
    stage.set(stage.graph, lambda images: tf.reduce_max(images, axis=[1, 2]))
    assert stage.getGraph().input().shape == (None, None, None, 3)
    stage.setChannelOrder("L")
    assert stage.getGraph().input().shape == (None, None, None, 1)
    stage.save(str(tmp_path / "stage"))
    assert TFImageTransformer.load(str(tmp_path / "stage")).getGraph() == stage.getGraph()
    with pytest.raises(TypeError, match="int is no graph of TensorFlow 2"):
        stage.set(stage.graph, 3)


def test_what_does_not_fit_becomes_null_and_is_counted(tf, spark):
    import keras

    model = keras.Sequential(
        [keras.Input((4, 6, 3)), keras.layers.Flatten(), keras.layers.Dense(2)]
    )
    stage = transformer(graph=model)
    undecoded = [("", -1, -1, -1, -1, b""), ("", 4, 6, 3, 16, b"short"), ("", 4, 6, 3, 99, b"")]
    rows = [*structs([*COLOURS, None, GRAY]), *((each,) for each in undecoded)]
    results = computed(stage, rows, ImageSchema.imageSchema)
    found = [None if each is None else each.toArray() for each in results]
    fitting = [0, 1, 3]
    assert [i for i, each in enumerate(found) if each is not None] == fitting
    expected = model(np.stack([COLOURS[i][..., ::-1] for i in fitting]).astype(np.float32))
    np.testing.assert_allclose([found[i] for i in fitting], expected, rtol=1e-5, atol=1e-4)
    assert stage.badRows == 7


def test_a_size_that_an_operation_does_not_bear_becomes_null(tf, spark):
    kernel = tf.ones([5, 5, 3, 1])
    stage = transformer(
        graph=lambda images: tf.reduce_sum(tf.nn.conv2d(images, kernel, 1, "VALID"), [1, 2])
    )
    sizes = (6, 2, 7)
    found = vectors(stage, [np.ones((size, size, 3), np.uint8) for size in sizes])
    assert [None if each is None else each.tolist() for each in found] == [[300], None, [675]]
    assert stage.badRows == 1


def test_a_saved_stage_computes_the_same_on_executors(means, spark, storage):
    stage = transformer(channelOrder="BGR", graph=means, inputTensor="images")
    folder = f"s3a://{storage.name}/tf/images"
    PipelineModel([stage]).write().overwrite().save(folder)
    (loaded,) = PipelineModel.load(folder).stages
    assert loaded.getChannelOrder() == "BGR"
    assert loaded.getInputTensor() == "images"
    assert loaded.getGraph() == stage.getGraph()
    images = [*COLOURS, FLOATS, None]
    frame = spark.createDataFrame(structs(images), ImageSchema.imageSchema).coalesce(1)
    *found, nothing = (row.result for row in loaded.transform(frame).collect())
    expected = [means(each[None].astype(np.float32))[0] for each in images[:-1]]
    np.testing.assert_allclose([each.toArray() for each in found], expected, rtol=1e-5)
    assert nothing is None
    assert loaded.badRows == 1


def test_a_folder_of_a_saved_model_is_a_graph(tf, means, tmp_path):
    module = tf.Module()
    spec = tf.TensorSpec([None, None, None, 3], tf.float32, name="pixels")
    concrete = means.get_concrete_function(spec)
    module.variables_used = list(concrete.variables)
    tf.saved_model.save(module, tmp_path, signatures=concrete)
    graph = transformer(graph=str(tmp_path)).getGraph()
    assert graph.input().name == "pixels"
    assert graph == TFInputGraph.fromSavedModel(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inputCol": "nothing"}, "nothing does not exist"),
        ({"inputCol": "text"}, "must be images .* but is string"),
        ({"outputCol": "image"}, "image already exists"),
        ({"channelOrder": None}, "needs channelOrder"),
        ({"graph": None}, "needs graph"),
        ({"inputTensor": "x:0"}, r"no input 'x:0'. Available: images \(float32"),
        ({"outputTensor": "y"}, r"no output 'y'. Available: output_0 \(float32"),
        ({"outputMode": "image"}, r"needs an output .* not output_0 \(float32 \[None, 3\]\)"),
    ],
)
def test_what_does_not_fit_is_told_before_anything_is_computed(means, frame, change, message):
    stage = transformer(**({"graph": means} | change))
    with pytest.raises(IllegalArgumentException, match=message):
        stage.transform(frame.selectExpr("image", "'a' as text"))


def test_graphs_that_take_no_images_are_refused(tf, frame):
    def stage(*specs):
        function = tf.function(lambda *tensors: tensors[0])
        return transformer(graph=TFInputGraph.fromFunction(function, specs))

    images = tf.TensorSpec([None, 4, 6, 3], tf.float32)
    for specs, message in (
        ([tf.TensorSpec([None, 4, 6, 3], tf.uint8)], "does not take float32"),
        ([tf.TensorSpec([None, 72], tf.float32)], "does not take images"),
        ([images, images], "Name one input of the graph"),
    ):
        with pytest.raises(IllegalArgumentException, match=message):
            stage(*specs).transform(frame)


def test_parameters_that_there_are_not_are_refused():
    with pytest.raises(TypeError, match="RGB, BGR, L"):
        TFImageTransformer(channelOrder="GBR")
    with pytest.raises(TypeError, match="int is no graph of TensorFlow 2"):
        transformer(graph=3)
    with pytest.raises(ValueError, match="holds no SavedModel"):
        transformer(graph="/no/such/folder")
    with pytest.raises(TypeError, match="neither a tensor nor the name of one"):
        transformer(inputTensor=3)
