"""`TFTransformer` against TensorFlow itself."""

from __future__ import annotations

import numpy as np
import pytest
from pyspark.errors import IllegalArgumentException
from pyspark.ml import PipelineModel
from pyspark.ml.linalg import Vectors
from pyspark.sql import Row

from tests.support.stages import computed
from toolkit.sparkdl.tf_graph import TFInputGraph
from toolkit.sparkdl.tf_tensor import TFTransformer

WEIGHTS = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], np.float32)


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


NUMBERS = np.random.default_rng(7).normal(size=(300, 3)).round(3)  # more than computed at once
SCHEMA = "count bigint, array array<double>"


@pytest.fixture(scope="module")
def elementwise(tf):
    """Return a graph that doubles rows of arrays of any shape."""
    spec = tf.TensorSpec([None, None, None], tf.int32)
    return TFInputGraph.fromFunction(tf.function(lambda x: {"y": 2 * x}), [spec])


EVERYTHING = {name: f"{name}_" for name in ("product", "double", "twice", "positive", "outer")}


def column(rows, name):
    return np.array([row[name] for row in rows])


def outputs(stage, rows, schema):
    """Return rows of what a stage adds, computed in this process."""
    named = Row(*(name for _, name in stage.getOutputMapping()))
    return [named(*each) for each in computed(stage, rows, schema)]


def test_outputs_are_those_of_tensorflow(spark, graph, function):
    transformer = TFTransformer(
        tfInputGraph=graph,
        inputMapping={"array": "features", "count": "count:0"},
        outputMapping=EVERYTHING,
    )
    result = transformer.transform(spark.createDataFrame([], SCHEMA))
    kinds = {field.name: field.dataType.simpleString() for field in result.schema}
    assert result.columns == ["count", "array", *sorted(EVERYTHING.values())]
    assert kinds["product_"] == "array<float>"
    assert kinds["double_"] == "array<double>"
    assert kinds["twice_"] == "bigint"
    assert kinds["positive_"] == "boolean"
    assert kinds["outer_"] == "array<array<float>>"
    rows = outputs(transformer, list(enumerate(NUMBERS.tolist())), SCHEMA)
    expected = function(NUMBERS.astype(np.float32), np.arange(300))
    for name, added in EVERYTHING.items():
        np.testing.assert_allclose(column(rows, added), expected[name], rtol=1e-6, atol=1e-6)
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
    transformer = TFTransformer(
        tfInputGraph=graph,
        inputMapping=[("array", "features"), ("count", "count")],
        outputMapping=[("product", "p"), ("twice", "t")],
    )
    found = outputs(transformer, rows, "array array<float>, count int")
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
    rows = outputs(transformer, [(0,), (7,), (2,)], "place int")
    assert [row.found for row in rows] == [10, None, 30]
    assert transformer.badRows == 1


def test_a_saved_stage_computes_on_executors_from_vectors_dense_sparse_and_null(
    graph, spark, storage
):
    transformer = TFTransformer(
        tfInputGraph=graph,
        inputMapping={"vector": "features", "count": "count"},
        outputMapping={"product": "p", "twice": "t"},
    )
    folder = f"s3a://{storage.name}/tf/stage"
    PipelineModel([transformer]).write().overwrite().save(folder)
    (loaded,) = PipelineModel.load(folder).stages
    assert loaded.getTFInputGraph() == graph
    assert loaded.getInputMapping() == transformer.getInputMapping()
    assert loaded.getOutputMapping() == transformer.getOutputMapping()
    rows = [
        (Vectors.sparse(3, [1], [2.0]), 1),
        (None, 2),
        (Vectors.dense([1, 2]), 3),
        (Vectors.dense([1, 2, 3]), 4),
    ]
    frame = spark.createDataFrame(rows, ["vector", "count"]).coalesce(1)
    result = loaded.transform(frame)
    assert result.columns == ["vector", "count", "p", "t"]
    found = result.collect()
    assert [row.p for row in found] == [[6.0, 8.0], None, None, [22.0, 28.0]]
    assert [row.t for row in found] == [2, None, None, 8]
    assert loaded.badRows == 2


def test_arrays_of_several_shapes_keep_their_shape_and_their_order(elementwise, spark):
    cells = [[[1, 2], [3, 4]], [[5]], [[1], [2, 3]], [[6, 7], [8, 9]], [], [[3_000_000_000, 1]]]
    schema = "x array<array<bigint>>"
    transformer = TFTransformer(
        tfInputGraph=elementwise, inputMapping={"x": "x"}, outputMapping={"y": "y"}
    )
    kind = transformer.transform(spark.createDataFrame([], schema)).schema["y"].dataType
    assert kind.simpleString() == "array<array<int>>"
    doubled = [[[2, 4], [6, 8]], [[10]], None, [[12, 14], [16, 18]], [], None]
    found = outputs(transformer, [(cell,) for cell in cells], schema)
    assert [row.y for row in found] == doubled
    assert transformer.badRows == 2


def test_flat_arrays_fill_a_graph_with_a_fixed_batch(tf, spark):
    spec = tf.TensorSpec([4, 2, 3], tf.float64)
    graph = TFInputGraph.fromFunction(tf.function(lambda x: tf.reduce_sum(x, axis=1)), spec)
    numbers = np.arange(30.0).reshape(5, 6)
    transformer = TFTransformer(
        tfInputGraph=graph, inputMapping={"x": "x"}, outputMapping={"output_0": "sum"}
    )
    rows = outputs(transformer, [(row,) for row in numbers.tolist()], "x array<double>")
    found = column(rows, "sum")
    np.testing.assert_array_equal(found, numbers.reshape(5, 2, 3).sum(axis=1))


def test_numbers_fill_arrays_of_one(tf, spark):
    spec = tf.TensorSpec([None, 1], tf.float32)
    graph = TFInputGraph.fromFunction(tf.function(lambda x: 2 * x), spec)
    transformer = TFTransformer(
        tfInputGraph=graph, inputMapping={"x": "x"}, outputMapping={"output_0": "y"}
    )
    found = outputs(transformer, [(1,), (None,), (3,)], "x short")
    assert [row.y for row in found] == [[2.0], None, [6.0]]


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
        [], "array array<double>, count bigint, one bigint, real double, text string"
    )
    whole = {
        "tfInputGraph": graph,
        "inputMapping": {"array": "features", "count": "count"},
        "outputMapping": {"product": "p"},
    }
    with pytest.raises(IllegalArgumentException, match=message):
        TFTransformer(**whole | change).transform(frame)


def test_an_output_without_a_batch_is_refused(tf, spark):
    spec = tf.TensorSpec([None, 3], tf.float32)
    known = TFInputGraph.fromFunction(tf.function(lambda x: {"y": tf.reduce_sum(x)}), spec)
    mapping = {"inputMapping": {"array": "x"}, "outputMapping": {"y": "y"}}
    with pytest.raises(IllegalArgumentException, match=r"y .* has no side for the batch"):
        TFTransformer(tfInputGraph=known, **mapping).transform(spark.createDataFrame([], SCHEMA))


def test_an_empty_frame_stays_empty(graph, spark):
    transformer = TFTransformer(
        tfInputGraph=graph,
        inputMapping={"array": "features", "count": "count"},
        outputMapping={"product": "p"},
    )
    assert outputs(transformer, [], SCHEMA) == []


def test_parameters_of_the_wrong_type_are_refused(graph):
    with pytest.raises(TypeError, match="hyper-parameters went with"):
        TFTransformer(tfHParms={"rate": 1})
    with pytest.raises(TypeError, match=r"str is no TFInputGraph: .*fromSavedModel"):
        TFTransformer(tfInputGraph="folder")
    with pytest.raises(TypeError, match="no mapping of names"):
        TFTransformer(inputMapping={"column": 1})
    mapped = TFTransformer(inputMapping={"b": "x", "a": "y:0"}, tfHParms=None)
    assert mapped.getInputMapping() == [("a", "y:0"), ("b", "x")]
