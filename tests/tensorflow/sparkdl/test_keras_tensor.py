"""`KerasTransformer` on the cluster, against Keras' own `predict`."""

from __future__ import annotations

import numpy as np
import pytest
from pyspark.errors import IllegalArgumentException
from pyspark.ml import Pipeline, PipelineModel
from pyspark.ml.linalg import Vectors

from toolkit.sparkdl.keras_models import import_keras
from toolkit.sparkdl.keras_tensor import KerasTransformer

pytestmark = pytest.mark.slow  # every Python worker imports TensorFlow

ROWS = 35  # more than one batch


def dense(width=10):
    keras = import_keras()
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input((width,)),
            keras.layers.Dense(10, activation="relu"),
            keras.layers.Dense(1, activation="sigmoid"),
        ]
    )


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


@pytest.fixture(scope="module")
def frame(spark, numbers):
    rows = [(each.tolist(),) for each in numbers]
    return spark.createDataFrame(rows, "numbers array<double>").coalesce(1).cache()


@pytest.mark.parametrize("ending", [".keras", ".h5"])
@pytest.mark.parametrize("kind", ["float", "double", "tinyint", "bigint", "decimal(5, 2)"])
def test_arrays_of_any_numbers_give_what_predict_gives(frame, numbers, tmp_path, ending, kind):
    model = dense()
    typed = frame.selectExpr(f"CAST(numbers AS array<{kind}>) AS numbers")
    found = transformer(save(model, tmp_path / f"model{ending}")).transform(typed)
    assert found.schema["scores"].dataType.simpleString() == "array<float>"
    rows = np.array([row.scores for row in found.collect()])
    expected = model.predict(numbers, verbose=0)
    np.testing.assert_allclose(rows, expected, atol=1e-5)


def test_arrays_of_arrays_keep_their_shape(spark, tmp_path):
    keras = import_keras()
    model = keras.Sequential([keras.Input((2, 3)), keras.layers.Dense(4)])
    values = np.random.default_rng(1).normal(size=(5, 2, 3))
    rows = [(each.tolist(),) for each in values]
    frame = spark.createDataFrame(rows, "numbers array<array<double>>").coalesce(1)
    found = transformer(save(model, tmp_path / "model.keras")).transform(frame)
    assert found.schema["scores"].dataType.simpleString() == "array<array<float>>"
    scores = np.array([row.scores for row in found.collect()])
    np.testing.assert_allclose(scores, model.predict(values, verbose=0), atol=1e-5)


def test_vectors_dense_and_sparse_are_taken(spark, tmp_path):
    model = dense(3)
    rows = [(Vectors.dense(1, 0, 2),), (Vectors.sparse(3, [0, 2], [1, 2]),), (None,)]
    frame = spark.createDataFrame([*rows, (Vectors.sparse(3, [], []),)], ["numbers"]).coalesce(1)
    found = transformer(save(model, tmp_path / "model.keras")).transform(frame)
    first, second, none, zeros = (row.scores for row in found.collect())
    expected = model.predict(np.array([[1, 0, 2], [0, 0, 0]], np.float32), verbose=0)
    assert none is None
    assert first == second == pytest.approx(expected[0], abs=1e-5)
    assert zeros == pytest.approx(expected[1], abs=1e-5)


def test_whole_numbers_reach_a_model_that_takes_them_exactly(spark, tmp_path):
    keras = import_keras()
    number = keras.Input((2,), dtype="int32")
    model = keras.Model(number, keras.ops.mod(number, 10))
    frame = spark.createDataFrame([([2**30 + 7, 3],)], "numbers array<int>").coalesce(1)
    found = transformer(save(model, tmp_path / "model.keras")).transform(frame)
    assert found.collect()[0].scores == [(2**30 + 7) % 10, 3]


def test_bad_rows_become_null_and_are_counted(spark, tmp_path):
    keras = import_keras()
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
    frame = spark.createDataFrame(
        [(each,) for each in (good, *bad, good)], "numbers array<array<double>>"
    ).coalesce(1)
    assert stage.badRows == 0
    rows = [row.scores for row in stage.transform(frame).collect()]
    assert rows == [[1, 2, 3, 4], *[None] * len(bad), [1, 2, 3, 4]]
    assert stage.badRows == len(bad)


def test_what_is_wrong_is_told_before_anything_runs(spark, frame, tmp_path):
    model_file = save(dense(), tmp_path / "model.keras")
    with pytest.raises(ValueError, match=r"none\.h5 cannot be read"):
        transformer("none.h5").transform(frame)
    with pytest.raises(IllegalArgumentException, match="must be arrays of numbers"):
        transformer(model_file).transform(spark.createDataFrame([("a",)], "numbers string"))
    with pytest.raises(IllegalArgumentException, match="must be arrays of numbers"):
        transformer(model_file).transform(
            spark.createDataFrame([(["a"],)], "numbers array<string>")
        )
    with pytest.raises(IllegalArgumentException, match="of 1 axes"):
        transformer(model_file).transform(frame.selectExpr("array(numbers) AS numbers"))
    with pytest.raises(IllegalArgumentException, match="no does not exist"):
        transformer(model_file, inputCol="no").transform(frame)
    with pytest.raises(IllegalArgumentException, match="already exists"):
        transformer(model_file, outputCol="numbers").transform(frame)


@pytest.mark.parametrize("place", ["local", "s3a"])
def test_stages_and_pipelines_save_and_load(frame, storage, tmp_path, place):
    root = (tmp_path / "saved").as_uri() if place == "local" else f"s3a://{storage.name}/tensor"
    file = tmp_path / "model.keras"
    stage = transformer(save(dense(), file))
    expected = stage.transform(frame).collect()
    stage.write().overwrite().save(f"{root}/stage")
    Pipeline(stages=[stage]).fit(frame).write().overwrite().save(f"{root}/pipeline")
    file.unlink()
    assert KerasTransformer.load(f"{root}/stage").transform(frame).collect() == expected
    assert PipelineModel.load(f"{root}/pipeline").transform(frame).collect() == expected
