"""`KerasTransformer` against Keras' own `predict`."""

from __future__ import annotations

import numpy as np
import pytest
from pyspark.errors import IllegalArgumentException
from pyspark.ml import PipelineModel
from pyspark.ml.linalg import Vectors, VectorUDT
from pyspark.sql.types import StructType

from tests.support.stages import computed
from toolkit.sparkdl.keras_tensor import KerasTransformer

ROWS = 35  # more than one batch


@pytest.fixture(scope="module")
def dense(keras):
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input((10,)),
            keras.layers.Dense(10, activation="relu"),
            keras.layers.Dense(1, activation="sigmoid"),
        ]
    )


@pytest.fixture(scope="module")
def dense_file(dense, tmp_path_factory):
    return save(dense, tmp_path_factory.mktemp("dense") / "model.keras")


def save(model, path):
    model.save(path)
    return str(path)


def transformer(model_file, **arguments):
    return KerasTransformer(
        **{"inputCol": "numbers", "outputCol": "scores", "modelFile": model_file} | arguments
    )


@pytest.fixture(scope="module")
def numbers():
    return np.random.default_rng(0).integers(-100, 100, (ROWS, 10)).astype(float)


@pytest.mark.parametrize("kind", ["float", "double", "tinyint", "bigint", "decimal(5, 2)"])
def test_arrays_of_any_numbers_give_what_predict_gives(spark, dense, dense_file, numbers, kind):
    typed = numbers.astype({"tinyint": int, "bigint": int, "decimal(5, 2)": object}.get(kind, kind))
    if kind.startswith("decimal"):
        from decimal import Decimal

        typed = np.vectorize(Decimal)(numbers)
    rows = [(each.tolist(),) for each in typed]
    found = computed(transformer(dense_file), rows, f"numbers array<{kind}>")
    np.testing.assert_allclose(found, dense.predict(numbers, verbose=0), atol=1e-5)


def test_a_saved_pipeline_computes_the_same_on_executors(spark, storage, dense, numbers, tmp_path):
    file = tmp_path / "model.h5"
    stage = transformer(save(dense, file))
    root = f"s3a://{storage.name}/tensor/pipeline"
    PipelineModel([stage]).write().overwrite().save(root)
    file.unlink()
    (loaded,) = PipelineModel.load(root).stages
    rows = [*((each.tolist(),) for each in numbers), (None,)]
    frame = spark.createDataFrame(rows, "numbers array<double>").coalesce(1)
    scored = loaded.transform(frame)
    assert scored.schema["scores"].dataType.simpleString() == "array<float>"
    # A filter that reads the scores must not have them computed twice.
    *found, nothing = scored.filter("scores IS NULL OR scores[0] > -1").collect()
    scores = [row.scores for row in found]
    np.testing.assert_allclose(scores, dense.predict(numbers, verbose=0), atol=1e-5)
    assert nothing.scores is None
    assert loaded.badRows == 1


def test_arrays_of_arrays_keep_their_shape(keras, spark, tmp_path):
    model = keras.Sequential([keras.Input((2, 3)), keras.layers.Dense(4)])
    values = np.random.default_rng(1).normal(size=(5, 2, 3))
    schema = "numbers array<array<double>>"
    stage = transformer(save(model, tmp_path / "model.keras"))
    kind = stage.transform(spark.createDataFrame([], schema)).schema["scores"].dataType
    assert kind.simpleString() == "array<array<float>>"
    scores = computed(stage, [(each.tolist(),) for each in values], schema)
    np.testing.assert_allclose(scores, model.predict(values, verbose=0), atol=1e-5)


def test_vectors_dense_and_sparse_are_taken(spark, dense, dense_file):
    full = np.arange(10) * (np.arange(10) % 3 == 0)
    rows = [
        Vectors.dense(full),
        Vectors.sparse(10, [3, 6, 9], [3, 6, 9]),
        None,
        Vectors.sparse(10, [], []),
    ]
    found = computed(
        transformer(dense_file),
        [(each,) for each in rows],
        StructType().add("numbers", VectorUDT()),
    )
    first, second, none, zeros = found
    expected = dense.predict(np.stack([full, np.zeros(10)]).astype(np.float32), verbose=0)
    assert none is None
    assert first == second == pytest.approx(expected[0], abs=1e-5)
    assert zeros == pytest.approx(expected[1], abs=1e-5)


def test_whole_numbers_reach_a_model_that_takes_them_exactly(keras, spark, tmp_path):
    number = keras.Input((2,), dtype="int32")
    model = keras.Model(number, keras.ops.mod(number, 10))
    stage = transformer(save(model, tmp_path / "model.keras"))
    found = computed(stage, [([2**30 + 7, 3],)], "numbers array<int>")
    assert found == [[(2**30 + 7) % 10, 3]]


def test_bad_rows_become_null_and_are_counted(keras, spark, tmp_path):
    model = keras.Sequential([keras.Input((2, 2)), keras.layers.Flatten()])
    stage = transformer(save(model, tmp_path / "model.keras"))
    good = [[1.0, 2.0], [3.0, 4.0]]
    bad = [
        None,
        [],
        [[1.0], [2.0, 3.0]],
        [None, [1.0, 2.0]],
        [[1.0, None], [1.0, 1.0]],
        [[1.0, 2.0]],
    ]
    assert stage.badRows == 0
    rows = [(each,) for each in (good, *bad, good)]
    found = computed(stage, rows, "numbers array<array<double>>")
    assert found == [[1, 2, 3, 4], *[None] * len(bad), [1, 2, 3, 4]]
    assert stage.badRows == len(bad)


def test_what_is_wrong_is_told_before_anything_runs(spark, dense_file):
    def refused(schema, message, error=IllegalArgumentException, file=dense_file, **columns):
        with pytest.raises(error, match=message):
            transformer(file, **columns).transform(spark.createDataFrame([], schema))

    good = "numbers array<double>"
    refused(good, r"none\.h5 cannot be read", error=ValueError, file="none.h5")
    refused("numbers string", "must be arrays of numbers")
    refused("numbers array<string>", "must be arrays of numbers")
    refused("numbers array<array<double>>", "of 1 axes")
    refused(good, "no does not exist", inputCol="no")
    refused(good, "already exists", outputCol="numbers")
