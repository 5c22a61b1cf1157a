"""`KerasImageFileEstimator`: trains candidates as Keras would, one a task."""

from __future__ import annotations

import gc
import shutil

import numpy as np
import pytest
from pyspark.errors import IllegalArgumentException
from pyspark.ml import Pipeline, PipelineModel
from pyspark.ml.evaluation import MulticlassClassificationEvaluator
from pyspark.ml.feature import OneHotEncoder
from pyspark.ml.linalg import Vectors
from pyspark.ml.tuning import ParamGridBuilder, TrainValidationSplit
from pyspark.sql import functions as F

from tests.support.stages import computed
from toolkit.errors import JobError
from toolkit.sparkdl import estimators
from toolkit.sparkdl.estimators import KerasImageFileEstimator, _candidate, _Training
from toolkit.sparkdl.keras_image import KerasImageFileTransformer
from toolkit.sparkdl.keras_models import import_keras, load_keras_model, share_model

SIDE, CLASSES, ROWS = 4, 2, 12


def make_loader(*, side=SIDE):
    """Return a loader that executors get by value: they cannot import this module."""

    def load(uri):
        import numpy as np
        from PIL import Image as PillowImage

        with PillowImage.open(uri) as image:
            return np.asarray(image.convert("RGB").resize((side, side)), "float32")[None] / 255

    return load


def refuse(uri):
    raise AssertionError("the loader was called")


@pytest.fixture(scope="module")
def model_file(keras, tmp_path_factory):
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input((SIDE, SIDE, 3)),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(CLASSES, activation="softmax"),
        ]
    )
    file = tmp_path_factory.mktemp("model") / "model.h5"
    model.save(file)
    return str(file)


@pytest.fixture(scope="module")
def rows(pictures):
    """Return the first pictures with their labels: one-hot and as a number."""
    return [
        (uri, Vectors.sparse(CLASSES, [number % CLASSES], [1.0]), float(number % CLASSES))
        for number, uri in enumerate(pictures[:ROWS])
    ]


@pytest.fixture(scope="module")
def frame(spark, rows):
    return spark.createDataFrame(rows, ["uri", "onehot", "label"]).coalesce(1)


@pytest.fixture(scope="module")
def estimator(model_file):
    return make_estimator(model_file)


def make_estimator(model_file, **arguments):
    defaults = {
        "inputCol": "uri",
        "outputCol": "scores",
        "labelCol": "onehot",
        "imageLoader": make_loader(),
        "kerasOptimizer": "sgd",
        "kerasLoss": "categorical_crossentropy",
        "kerasFitParams": {"epochs": 2, "batch_size": 4},
    }
    return KerasImageFileEstimator(**defaults | {"modelFile": model_file} | arguments)


def weights(transformer):
    return load_keras_model(transformer.getModelFile()).get_weights()


def images_and_labels(rows):
    images = np.concatenate([make_loader()(uri) for uri, *_ in rows])
    return images, np.stack([label.toArray() for _, label, _ in rows])


def train_plainly(model_file, rows, *, optimizer="sgd", **arguments):
    keras = import_keras()
    keras.utils.set_random_seed(0)
    model = load_keras_model(model_file)
    model.compile(optimizer=optimizer, loss="categorical_crossentropy")
    images, labels = images_and_labels(rows)
    model.fit(images, labels, verbose=0, **{"epochs": 2, "batch_size": 4} | arguments)
    return model


def jobs(spark):
    """Return how many jobs this session has begun: Spark numbers them."""
    return spark.sparkContext._jsc.sc().dagScheduler().numTotalJobs()


def test_candidates_are_trained_as_keras_would_and_leave_no_traces(
    spark, rows, estimator, model_file, tmp_path
):
    """The task that Spark runs, in this process."""
    keras = import_keras()
    fast = {"epochs": 1, "batch_size": 2}
    maps = [
        {estimator.kerasOptimizer: "adam"},
        {estimator.kerasFitParams: fast},
        {estimator.kerasOptimizer: keras.optimizers.SGD(learning_rate=0.5)},
        {estimator.kerasOptimizer: "adam"},
    ]
    untrained = KerasImageFileTransformer(
        inputCol="uri", outputCol="scores", modelFile=model_file, imageLoader=make_loader()
    )
    before = computed(untrained, [row[:1] for row in rows], "uri string")
    model = share_model(spark, model_file)
    task = _Training(model.file, *map(spark.sparkContext.broadcast, images_and_labels(rows)))
    found = []
    for index, each in enumerate(maps):
        file = tmp_path / f"{index}.keras"
        file.write_bytes(task(_candidate(index, estimator.copy(each), each, model)))
        found.append(load_keras_model(file).get_weights())
    assert computed(untrained, [row[:1] for row in rows], "uri string") == before
    expected = [
        {"optimizer": "adam"},
        fast,
        {"optimizer": keras.optimizers.SGD(learning_rate=0.5)},
    ]
    for trained, arguments in zip(found, expected, strict=False):
        plain = train_plainly(model_file, rows, **arguments)
        for left, right in zip(trained, plain.get_weights(), strict=True):
            np.testing.assert_allclose(left, right, atol=1e-5)
    for left, right in zip(found[0], found[3], strict=True):
        np.testing.assert_array_equal(left, right)


def test_a_fitted_pipeline_and_its_estimator_save_and_load(
    spark, frame, rows, storage, model_file, tmp_path
):
    root = f"s3a://{storage.name}/estimator"
    file = tmp_path / "model.h5"
    shutil.copy(model_file, file)
    fit_params = {"epochs": 1, "batch_size": 4, "class_weight": {0: 1.0, 1: 2.0}}
    estimator = make_estimator(str(file), kerasFitParams=fit_params)
    estimator.write().overwrite().save(f"{root}/estimator")
    file.unlink()
    loaded = KerasImageFileEstimator.load(f"{root}/estimator")
    assert loaded.uid == estimator.uid
    assert loaded.getKerasFitParams() == fit_params
    assert (loaded.getKerasOptimizer(), loaded.getLabelCol()) == ("sgd", "onehot")

    fitted = Pipeline(stages=[loaded]).fit(frame)
    fitted.write().overwrite().save(f"{root}/pipeline")
    (transformer,) = fitted.stages
    assert isinstance(transformer, KerasImageFileTransformer)
    for param in transformer.params:
        if param.name != "modelFile":
            assert transformer.getOrDefault(param) == loaded.getOrDefault(param.name)
    assert transformer.getModelFile() not in {loaded.getModelFile(), str(file)}
    model = train_plainly(model_file, rows, **fit_params)
    expected = model.predict(images_and_labels(rows)[0], verbose=0)
    (again,) = PipelineModel.load(f"{root}/pipeline").stages
    for stage in (transformer, again):
        scores = [each.toArray() for each in computed(stage, rows, frame.schema)]
        np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_images_that_cannot_be_loaded_are_left_out(spark, frame, rows, model_file):
    bad = ("/no/file", Vectors.dense(1, 0), 0.0)
    estimator = make_estimator(model_file)
    dataset = spark.createDataFrame([bad, *rows, bad], frame.schema).coalesce(1)
    images, labels = estimator._load(dataset, share_model(spark, model_file))
    assert estimator.badRows == 2
    for found, expected in zip((images, labels), images_and_labels(rows), strict=True):
        np.testing.assert_array_equal(found, expected)
    for nothing in ([bad], []):
        with pytest.raises(ValueError, match="nothing to train on"):
            estimator.fit(spark.createDataFrame(nothing, frame.schema).coalesce(1))


def test_a_failed_candidate_is_named_with_what_keras_said(spark, frame, estimator):
    maps = [
        {estimator.kerasFitParams: {"epochs": 1}},
        {estimator.kerasFitParams: {"batch_size": "many"}},
    ]
    models = estimator.fitMultiple(frame, maps)
    with pytest.raises(
        JobError, match=r"(?s)Candidate 1 \(kerasFitParams=.*many.*could not be trained: \w+Error: "
    ):
        list(models)
    with pytest.raises(JobError):  # not the end: others may wait for their models
        next(models)
    encoder = OneHotEncoder(inputCol="label", outputCol="wide", dropLast=False)
    three = encoder.fit(spark.createDataFrame([(2.0,)], ["label"])).transform(frame)
    with pytest.raises(JobError, match=r"(?s)Candidate 0 \(the parameters of the .*shape"):
        estimator.copy().setLabelCol("wide").fit(three)


def test_what_is_wrong_is_told_before_a_job_begins(spark, frame, model_file, tmp_path):
    before = jobs(spark)
    estimator = make_estimator(model_file, imageLoader=refuse)

    def fit(message, tuned=None, error=ValueError, data=frame, **arguments):
        stage = make_estimator(model_file, **{"imageLoader": refuse} | arguments)
        maps = [{stage.getParam(name): value for name, value in (tuned or {}).items()}]
        with pytest.raises(error, match=message):
            stage.fit(data, maps)

    with pytest.raises(ValueError, match=r"defined: \['imageLoader', 'inputCol', 'labelCol', 'mod"):
        KerasImageFileEstimator()._validateParams({})
    with pytest.raises(ValueError, match=r"defined or tuned: \['kerasLoss'\]"):
        KerasImageFileEstimator(
            inputCol="uri", labelCol="onehot", modelFile=model_file, imageLoader=refuse
        ).fit(frame)
    fit(r"not tuned: \['imageLoader'\]", {"imageLoader": refuse})
    fit(r"none\.h5 cannot be read", modelFile="none.h5")
    fit("outputMode 'image'", {"outputMode": "image"})
    fit("kerasFitParams cannot be sent", {"kerasFitParams": {"callbacks": [frame]}})
    fit("has no argument nb_epoch", {"kerasFitParams": {"nb_epoch": 3}})
    fit(r"nosuch.*adam", {"kerasOptimizer": "nosuch"}, TypeError)
    fit("image does not exist", error=IllegalArgumentException, inputCol="image")
    fit("must be URIs", error=IllegalArgumentException, inputCol="label")
    fit("must be one-hot vectors", error=IllegalArgumentException, labelCol="label")
    assert list(estimator.fitMultiple(frame, [])) == []
    assert estimator._validateParams({estimator.kerasLoss: "mse"})
    assert jobs(spark) == before
    frame.count()
    assert jobs(spark) > before  # so it does count


def test_labels_are_checked(spark, frame, rows, estimator):
    none = frame.selectExpr("uri", "IF(label = 1, onehot, NULL) AS onehot")
    with pytest.raises(ValueError, match="6 of 12 images have no onehot"):
        estimator.fit(none)
    wide = [(rows[0][0], Vectors.dense(1, 0)), (rows[1][0], Vectors.dense(1, 0, 0))]
    mixed = spark.createDataFrame(wide, ["uri", "onehot"]).coalesce(1)
    with pytest.raises(ValueError, match=r"Labels .* one shape.*\(2,\), \(3,\)"):
        estimator.fit(mixed)


def test_optimizers_and_losses_are_those_of_keras():
    keras = import_keras()
    estimator = KerasImageFileEstimator()
    assert estimator.getKerasOptimizer() == "adam"
    assert estimator.getKerasFitParams() == {}
    with pytest.raises(TypeError, match=r"nosuch.*adadelta.*adam.*sgd"):
        estimator.setKerasOptimizer("nosuch")
    with pytest.raises(TypeError, match=r"nosuch.*categorical_crossentropy.*mean_squared_error"):
        estimator.setKerasLoss("nosuch")
    with pytest.raises(TypeError, match="not supported"):
        estimator.setKerasLoss(lambda truth, found: truth - found)
    with pytest.raises(TypeError, match="x, y cannot be given"):
        estimator.setKerasFitParams({"y": 1, "x": 2})
    with pytest.raises(TypeError, match="no dict"):
        KerasImageFileEstimator(kerasFitParams=["epochs"])
    assert estimator.setKerasLoss(keras.losses.mean_squared_error).getKerasLoss() == (
        "mean_squared_error"
    )
    loss = keras.losses.CategoricalCrossentropy(label_smoothing=0.25)
    config = estimator.setKerasLoss(loss).getKerasLoss()["config"]
    assert config["label_smoothing"] == 0.25
    assert estimator.seKerasLoss("mse").getKerasLoss() == "mse"


@pytest.mark.filterwarnings("ignore:unclosed running multiprocessing pool:ResourceWarning")
def test_it_is_tuned(frame, rows, model_file):
    sgd = import_keras().optimizers.SGD(learning_rate=0.3)
    estimator = make_estimator(model_file, kerasOptimizer=sgd, outputCol="probability")
    short, long = {"epochs": 1, "batch_size": 12}, {"epochs": 30}
    labelled = frame.withColumn("prediction", F.col("label"))  # which the evaluator wants to see
    # `CrossValidator` asks the estimator by the same function of PySpark, once a fold.
    tuned = TrainValidationSplit(
        estimator=estimator,
        estimatorParamMaps=ParamGridBuilder()
        .addGrid(estimator.kerasFitParams, [short, long])
        .build(),
        evaluator=MulticlassClassificationEvaluator(metricName="logLoss"),
        trainRatio=0.5,
        seed=1,
        parallelism=2,
    ).fit(labelled)
    assert tuned.validationMetrics[1] < tuned.validationMetrics[0]
    assert isinstance(tuned.bestModel, KerasImageFileTransformer)
    assert tuned.bestModel.getKerasFitParams() == long
    assert "probability" in tuned.transform(labelled).columns
    gc.collect()  # PySpark leaves its threads to it


# The last of the file: cancelling a job ends the Python worker that runs it.
def test_models_come_as_they_are_trained_and_the_rest_can_be_left(
    spark, frame, rows, estimator, model_file, monkeypatch
):
    monkeypatch.setattr(estimators, "slots", lambda _: 1)  # one after another, in their order
    short, long = {"epochs": 1, "batch_size": 3}, {"epochs": 1_000_000}
    maps = [
        {estimator.kerasFitParams: short, estimator.outputCol: "first"},
        {estimator.kerasFitParams: long, estimator.outputCol: "second"},
    ]
    models = estimator.fitMultiple(frame, maps)
    index, model = next(models)  # though the other would train for an hour
    assert (index, model.getKerasFitParams(), model.getOutputCol()) == (0, short, "first")
    del models
    assert not spark.sparkContext.statusTracker().getActiveJobsIds()
    plain = train_plainly(model_file, rows, **short)
    for left, right in zip(weights(model), plain.get_weights(), strict=True):
        np.testing.assert_allclose(left, right, atol=1e-5)
