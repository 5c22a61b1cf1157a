"""`TFTransformer` on the cluster, against TensorFlow itself."""

from __future__ import annotations

import numpy as np
import pytest
from pyspark.errors import IllegalArgumentException
from pyspark.ml import PipelineModel
from pyspark.ml.linalg import Vectors

from toolkit.sparkdl.tensorflow_runtime import driver_tensorflow
from toolkit.sparkdl.tf_graph import TFInputGraph
from toolkit.sparkdl.tf_tensor import TFTransformer

pytestmark = pytest.mark.slow  # every Python worker imports TensorFlow

WEIGHTS = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], np.float32)


@pytest.fixture(scope="module")
def tf():
    return driver_tensorflow()


@pytest.fixture(scope="module")
def function(tf):
    """Return a function of two inputs and five outputs, with a variable."""
    weights = tf.Variable(WEIGHTS)

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, 3], tf.float32),
            tf.TensorSpec([None], tf.int64),
        ]
    )
    def compute(features, count):
        return {
            "product": features @ weights,
            "double": tf.cast(features, tf.float64) / 3,
            "twice": 2 * count,
            "positive": features[:, 0] > 0,
            "outer": features[:, :, None] * features[:, None, :],
        }

    return compute


@pytest.fixture(scope="module")
def graph(function):
    return TFInputGraph.fromFunction(function)


@pytest.fixture(scope="module")
def frame(spark):
    """Return more rows than are computed at once, in one partition."""
    numbers = np.random.default_rng(7).normal(size=(300, 3)).round(3).tolist()
    rows = [(i, row, Vectors.dense(row)) for i, row in enumerate(numbers)]
    return spark.createDataFrame(rows, ["count", "array", "vector"]).coalesce(1)


@pytest.fixture(scope="module")
def elementwise(tf):
    """Return a graph that doubles rows of arrays of any shape."""
    spec = tf.TensorSpec([None, None, None], tf.int32)
    return TFInputGraph.fromFunction(tf.function(lambda x: {"y": 2 * x}), [spec])


EVERYTHING = {name: f"{name}_" for name in ("product", "double", "twice", "positive", "outer")}


def column(rows, name):
    return np.array([row[name] for row in rows])


@pytest.mark.parametrize("features", ["array", "vector"])
def test_outputs_are_those_of_tensorflow(graph, function, frame, features):
    transformer = TFTransformer(
        tfInputGraph=graph,
        inputMapping={features: "features", "count": "count:0"},
        outputMapping=EVERYTHING,
    )
    result = transformer.transform(frame)
    kinds = {field.name: field.dataType.simpleString() for field in result.schema}
    assert result.columns == [*frame.columns, *sorted(EVERYTHING.values())]
    assert kinds["product_"] == "array<float>"
    assert kinds["double_"] == "array<double>"
    assert kinds["twice_"] == "bigint"
    assert kinds["positive_"] == "boolean"
    assert kinds["outer_"] == "array<array<float>>"
    rows = result.collect()
    expected = function(
        column(rows, "array").astype(np.float32), column(rows, "count").astype(np.int64)
    )
    for name, added in EVERYTHING.items():
        np.testing.assert_allclose(column(rows, added), expected[name], rtol=1e-6)
    assert transformer.badRows == 0


def test_outputs_are_computed_once_though_a_filter_reads_them(elementwise, spark):
    frame = spark.createDataFrame([([[1, 2]],), ([[None, 2]],)], "x array<array<int>>")
    transformer = TFTransformer(
        tfInputGraph=elementwise, inputMapping={"x": "x"}, outputMapping={"y": "y"}
    )
    result = transformer.transform(frame.coalesce(1)).filter("y is null or y[0][0] > 1")
    assert [row.y for row in result.collect()] == [[[2, 4]], None]
    assert transformer.badRows == 1


def test_rows_that_do_not_fit_are_null_and_counted(graph, spark):
    rows = [
        ([1.0, 2.0, 3.0], 1),
        (None, 2),
        ([1.0, 2.0], 3),
        ([1.0, None, 3.0], 4),
        ([4.0, 5.0, 6.0], None),
        ([7.0, 8.0, 9.0], 6),
    ]
    frame = spark.createDataFrame(rows, "array array<float>, count int").coalesce(1)
    transformer = TFTransformer(
        tfInputGraph=graph,
        inputMapping=[("array", "features"), ("count", "count")],
        outputMapping=[("product", "p"), ("twice", "t")],
    )
    found = transformer.transform(frame).collect()
    assert [row.t for row in found] == [2, None, None, None, None, 12]
    assert [row.p is None for row in found] == [False, True, True, True, True, False]
    expected = np.array([[1, 2, 3], [7, 8, 9]], np.float32) @ WEIGHTS
    np.testing.assert_allclose([found[0].p, found[5].p], expected)
    assert transformer.badRows == 4


def test_a_row_that_an_operation_refuses_is_null_and_its_neighbours_are_not(tf, spark):
    @tf.function(input_signature=[tf.TensorSpec([None], tf.int32)])
    def look_up(places):
        return {"found": tf.gather(tf.constant([10, 20, 30]), places)}

    transformer = TFTransformer(
        tfInputGraph=TFInputGraph.fromFunction(look_up),
        inputMapping={"place": "places"},
        outputMapping={"found": "found"},
    )
    frame = spark.createDataFrame([(0,), (7,), (2,)], "place int").coalesce(1)
    assert [row.found for row in transformer.transform(frame).collect()] == [10, None, 30]
    assert transformer.badRows == 1


def test_null_and_sparse_vectors(graph, spark):
    rows = [(Vectors.sparse(3, [1], [2.0]), 1), (None, 2), (Vectors.dense([1, 2]), 3)]
    frame = spark.createDataFrame(rows, ["vector", "count"]).coalesce(1)
    transformer = TFTransformer(
        tfInputGraph=graph,
        inputMapping={"vector": "features", "count": "count"},
        outputMapping={"product": "p"},
    )
    found = transformer.transform(frame).collect()
    assert [row.p for row in found] == [[6.0, 8.0], None, None]
    assert transformer.badRows == 2


def test_arrays_of_several_shapes_keep_their_shape_and_their_order(elementwise, spark):
    cells = [[[1, 2], [3, 4]], [[5]], [[1], [2, 3]], [[6, 7], [8, 9]], [], [[3_000_000_000, 1]]]
    frame = spark.createDataFrame([(cell,) for cell in cells], "x array<array<bigint>>")
    transformer = TFTransformer(
        tfInputGraph=elementwise, inputMapping={"x": "x"}, outputMapping={"y": "y"}
    )
    result = transformer.transform(frame.coalesce(1))
    assert result.schema["y"].dataType.simpleString() == "array<array<int>>"
    doubled = [[[2, 4], [6, 8]], [[10]], None, [[12, 14], [16, 18]], [], None]
    assert [row.y for row in result.collect()] == doubled
    assert transformer.badRows == 2


def test_flat_arrays_fill_a_graph_with_a_fixed_batch(tf, spark):
    spec = tf.TensorSpec([4, 2, 3], tf.float64)
    graph = TFInputGraph.fromFunction(tf.function(lambda x: tf.reduce_sum(x, axis=1)), spec)
    numbers = np.arange(30.0).reshape(5, 6)
    frame = spark.createDataFrame([(row,) for row in numbers.tolist()], ["x"]).coalesce(1)
    transformer = TFTransformer(
        tfInputGraph=graph, inputMapping={"x": "x"}, outputMapping={"output_0": "sum"}
    )
    found = column(transformer.transform(frame).collect(), "sum")
    np.testing.assert_array_equal(found, numbers.reshape(5, 2, 3).sum(axis=1))


@pytest.mark.parametrize("place", ["local", "s3a"])
def test_a_saved_stage_computes_the_same(graph, frame, storage, tmp_path, place):
    transformer = TFTransformer(
        tfInputGraph=graph,
        inputMapping={"array": "features", "count": "count"},
        outputMapping={"product": "p", "twice": "t"},
    )
    folder = str(tmp_path / "stage") if place == "local" else f"s3a://{storage.name}/tf/stage"
    PipelineModel([transformer]).write().overwrite().save(folder)
    (loaded,) = PipelineModel.load(folder).stages
    assert loaded.getTFInputGraph() == graph
    assert loaded.getInputMapping() == transformer.getInputMapping()
    assert loaded.getOutputMapping() == transformer.getOutputMapping()
    some = frame.filter("count < 5")
    assert loaded.transform(some).collect() == transformer.transform(some).collect()


def test_numbers_fill_arrays_of_one(tf, spark):
    spec = tf.TensorSpec([None, 1], tf.float32)
    graph = TFInputGraph.fromFunction(tf.function(lambda x: 2 * x), spec)
    frame = spark.createDataFrame([(1,), (None,), (3,)], "x short").coalesce(1)
    transformer = TFTransformer(
        tfInputGraph=graph, inputMapping={"x": "x"}, outputMapping={"output_0": "y"}
    )
    assert [row.y for row in transformer.transform(frame).collect()] == [[2.0], None, [6.0]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inputMapping": {"nothing": "features", "count": "count"}}, "nothing does not exist"),
        (
            {"inputMapping": {"text": "features", "count": "count"}},
            "must be numbers, arrays of numbers, or vectors, but is string",
        ),
        (
            {"inputMapping": {"array": "features", "real": "count"}},
            r"real \(double\) does not fit the input count \(int64 \[None\]\): cast it",
        ),
        (
            {"inputMapping": {"real": "features", "count": "count"}},
            r"real \(double\) does not fit the input features .* 0 deep, not 1",
        ),
        (
            {"inputMapping": {"array": "pixels", "count": "count"}},
            r"no input 'pixels'. Available: count \(int64 \[None\]\), features",
        ),
        ({"inputMapping": {"array": "features"}}, "no column for count"),
        (
            {"inputMapping": [("array", "features"), ("count", "count"), ("one", "count:0")]},
            "several columns for count",
        ),
        ({"outputMapping": {"x": "p"}}, "no output 'x'. Available: double .*, outer"),
        ({"outputMapping": {"product": "array"}}, "array already exists"),
        ({"outputMapping": {"product": "p", "twice": "p"}}, "several outputs for p"),
        ({"outputMapping": {}}, "needs outputMapping"),
    ],
)
def test_what_does_not_fit_is_told_before_anything_is_computed(graph, spark, change, message):
    frame = spark.createDataFrame(
        [([1.0], 1, 1, 1.5, "")], ["array", "count", "one", "real", "text"]
    )
    whole = {
        "tfInputGraph": graph,
        "inputMapping": {"array": "features", "count": "count"},
        "outputMapping": {"product": "p"},
    }
    with pytest.raises(IllegalArgumentException, match=message):
        TFTransformer(**whole | change).transform(frame)


def test_an_output_without_a_batch_is_refused(tf, frame):
    spec = tf.TensorSpec([None, 3], tf.float32)
    known = TFInputGraph.fromFunction(tf.function(lambda x: {"y": tf.reduce_sum(x)}), spec)
    mapping = {"inputMapping": {"array": "x"}, "outputMapping": {"y": "y"}}
    with pytest.raises(IllegalArgumentException, match=r"y .* has no side for the batch"):
        TFTransformer(tfInputGraph=known, **mapping).transform(frame)


def test_an_empty_frame_stays_empty(graph, frame):
    transformer = TFTransformer(
        tfInputGraph=graph,
        inputMapping={"array": "features", "count": "count"},
        outputMapping={"product": "p"},
    )
    assert transformer.transform(frame.filter("count < 0")).collect() == []


def test_parameters_of_the_wrong_type_are_refused(graph):
    with pytest.raises(TypeError, match="hyper-parameters went with"):
        TFTransformer(tfHParms={"rate": 1})
    with pytest.raises(TypeError, match=r"str is no TFInputGraph: .*fromSavedModel"):
        TFTransformer(tfInputGraph="folder")
    with pytest.raises(TypeError, match="no mapping of names"):
        TFTransformer(inputMapping={"column": 1})
    mapped = TFTransformer(inputMapping={"b": "x", "a": "y:0"}, tfHParms=None)
    assert mapped.getInputMapping() == [("a", "y:0"), ("b", "x")]
