"""`KerasImageFileEstimator` on the cluster: trains candidates as Keras would, one a task."""

from __future__ import annotations

import gc

import numpy as np
import pytest
from PIL import Image
from pyspark.errors import IllegalArgumentException
from pyspark.ml import Pipeline, PipelineModel
from pyspark.ml.evaluation import MulticlassClassificationEvaluator
from pyspark.ml.feature import OneHotEncoder
from pyspark.ml.linalg import Vectors
from pyspark.ml.tuning import CrossValidator, ParamGridBuilder, TrainValidationSplit
from pyspark.sql import functions as F

from toolkit.errors import JobError
from toolkit.sparkdl import estimators
from toolkit.sparkdl.estimators import KerasImageFileEstimator
from toolkit.sparkdl.keras_image import KerasImageFileTransformer
from toolkit.sparkdl.keras_models import import_keras, load_keras_model

pytestmark = pytest.mark.slow  # every Python worker imports TensorFlow

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
def model_file(tmp_path_factory):
    keras = import_keras()
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
def pictures(tmp_path_factory):
    """Return paths of dark and of light images, in turn."""
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    for number in range(ROWS):
        pixels = random.integers(0, 100, (6, 5, 3), np.uint8) + 150 * (number % CLASSES)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number:02}.png")
    return sorted(map(str, folder.iterdir()))


@pytest.fixture(scope="module")
def frame(spark, pictures):
    rows = [
        (uri, Vectors.sparse(CLASSES, [number % CLASSES], [1.0]), float(number % CLASSES))
        for number, uri in enumerate(pictures)
    ]
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


def train_plainly(model_file, pictures, *, optimizer="sgd", **arguments):
    keras = import_keras()
    keras.utils.set_random_seed(0)
    model = load_keras_model(model_file)
    model.compile(optimizer=optimizer, loss="categorical_crossentropy")
    images = np.concatenate([make_loader()(uri) for uri in pictures])
    labels = np.eye(CLASSES)[np.arange(ROWS) % CLASSES]
    model.fit(images, labels, verbose=0, **{"epochs": 2, "batch_size": 4} | arguments)
    return model, images


def jobs(spark):
    """Return how many jobs this session has begun: Spark numbers them."""
    return spark.sparkContext._jsc.sc().dagScheduler().numTotalJobs()


def test_a_fit_gives_what_keras_gives_and_the_parameters(frame, pictures, estimator, model_file):
    transformer = estimator.fit(frame)
    assert isinstance(transformer, KerasImageFileTransformer)
    model, images = train_plainly(model_file, pictures)
    for found, expected in zip(weights(transformer), model.get_weights(), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)
    for param in transformer.params:
        if param.name != "modelFile":
            assert transformer.getOrDefault(param) == estimator.getOrDefault(param.name)
    assert transformer.getModelFile() != model_file
    scores = [row.scores.toArray() for row in transformer.transform(frame).collect()]
    np.testing.assert_allclose(scores, model.predict(images, verbose=0), atol=1e-5)


def test_each_map_is_a_candidate_and_workers_leave_no_traces(
    frame, pictures, estimator, model_file
):
    keras = import_keras()
    fast = {"epochs": 1, "batch_size": 2}
    maps = [
        {estimator.kerasOptimizer: "adam"},
        {estimator.kerasFitParams: fast, estimator.outputCol: "fast"},
        {estimator.kerasOptimizer: keras.optimizers.SGD(learning_rate=0.5)},
        {estimator.kerasOptimizer: "adam"},
    ]
    untrained = KerasImageFileTransformer(
        inputCol="uri", outputCol="scores", modelFile=model_file, imageLoader=make_loader()
    ).transform(frame)
    before = untrained.collect()
    found = estimator.fit(frame, maps)
    assert untrained.collect() == before
    expected = [
        {"optimizer": "adam"},
        fast,
        {"optimizer": keras.optimizers.SGD(learning_rate=0.5)},
        {"optimizer": "adam"},
    ]
    for transformer, arguments in zip(found, expected, strict=True):
        model, _ = train_plainly(model_file, pictures, **arguments)
        for left, right in zip(weights(transformer), model.get_weights(), strict=True):
            np.testing.assert_allclose(left, right, atol=1e-5)
    assert [each.getOutputCol() for each in found] == ["scores", "fast", "scores", "scores"]
    assert found[1].getKerasFitParams() == fast
    for left, right in zip(weights(found[0]), weights(found[3]), strict=True):
        np.testing.assert_array_equal(left, right)


def test_models_come_as_they_are_trained_and_the_rest_can_be_left(
    spark, frame, estimator, monkeypatch
):
    monkeypatch.setattr(estimators, "slots", lambda _: 1)  # one after another, in their order
    short, long = {"epochs": 1}, {"epochs": 1_000_000}
    models = estimator.fitMultiple(
        frame, [{estimator.kerasFitParams: each} for each in (short, long)]
    )
    index, model = next(models)  # though the other would train for an hour
    assert (index, model.getKerasFitParams()) == (0, short)
    del models
    assert not spark.sparkContext.statusTracker().getActiveJobsIds()


def test_images_that_cannot_be_loaded_are_left_out(spark, frame, pictures, model_file):
    bad = spark.createDataFrame([("/no/file", Vectors.dense(1, 0), 0.0)], frame.schema)
    estimator = make_estimator(model_file)
    transformer = estimator.fit(bad.union(frame).union(bad).coalesce(1))
    model, _ = train_plainly(model_file, pictures)
    for found, expected in zip(weights(transformer), model.get_weights(), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)
    assert estimator.badRows == 2
    for nothing in (bad, frame.limit(0)):
        with pytest.raises(ValueError, match="nothing to train on"):
            estimator.fit(nothing)


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


def test_labels_are_checked(spark, frame, pictures, estimator):
    none = frame.selectExpr("uri", "IF(label = 1, onehot, NULL) AS onehot")
    with pytest.raises(ValueError, match="6 of 12 images have no onehot"):
        estimator.fit(none)
    rows = [(pictures[0], Vectors.dense(1, 0)), (pictures[1], Vectors.dense(1, 0, 0))]
    mixed = spark.createDataFrame(rows, ["uri", "onehot"]).coalesce(1)
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
@pytest.mark.parametrize(
    "tuning",
    [
        pytest.param(lambda **given: CrossValidator(numFolds=2, **given), id="folds"),
        pytest.param(
            lambda **given: TrainValidationSplit(trainRatio=0.5, **given),
            id="split",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_it_is_tuned(frame, model_file, tuning):
    sgd = import_keras().optimizers.SGD(learning_rate=0.3)
    estimator = make_estimator(model_file, kerasOptimizer=sgd, outputCol="probability")
    short, long = {"epochs": 1, "batch_size": 12}, {"epochs": 30}
    labelled = frame.withColumn("prediction", F.col("label"))  # which the evaluator wants to see
    tuned = tuning(
        estimator=estimator,
        estimatorParamMaps=ParamGridBuilder()
        .addGrid(estimator.kerasFitParams, [short, long])
        .build(),
        evaluator=MulticlassClassificationEvaluator(metricName="logLoss"),
        seed=1,
        parallelism=2,
    ).fit(labelled)
    metrics = getattr(tuned, "avgMetrics", None) or tuned.validationMetrics
    assert metrics[1] < metrics[0]
    assert isinstance(tuned.bestModel, KerasImageFileTransformer)
    assert tuned.bestModel.getKerasFitParams() == long
    assert "probability" in tuned.transform(labelled).columns
    gc.collect()  # PySpark leaves its threads to it


@pytest.mark.parametrize("place", ["local", "s3a"])
def test_an_estimator_and_a_fitted_pipeline_save_and_load(
    frame, storage, model_file, tmp_path, place
):
    root = (tmp_path / "saved").as_uri() if place == "local" else f"s3a://{storage.name}/estimator"
    fit_params = {"epochs": 1, "class_weight": {0: 1.0, 1: 2.0}}
    estimator = make_estimator(model_file, kerasFitParams=fit_params)
    estimator.write().overwrite().save(f"{root}/estimator")
    loaded = KerasImageFileEstimator.load(f"{root}/estimator")
    assert loaded.uid == estimator.uid
    assert loaded.getKerasFitParams() == fit_params
    assert (loaded.getKerasOptimizer(), loaded.getLabelCol()) == ("sgd", "onehot")
    fitted = Pipeline(stages=[loaded]).fit(frame)
    fitted.write().overwrite().save(f"{root}/pipeline")
    again = PipelineModel.load(f"{root}/pipeline").transform(frame)
    assert again.collect() == fitted.transform(frame).collect()
