"""What SparkDL's users wrote, on the local stack, with nothing changed but the imports."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import duckdb
import numpy as np
import pytest
from pyspark.ml import Pipeline, PipelineModel
from pyspark.ml.classification import LogisticRegression
from pyspark.ml.evaluation import MulticlassClassificationEvaluator
from pyspark.ml.feature import PCA, StringIndexer, VectorSlicer
from pyspark.sql.functions import udf

from tests.support import CHECKOUT
from toolkit.images.listing import mirror_folder
from toolkit.sparkdl import DeepImageFeaturizer, ImageSchema
from toolkit.storage import Location

pytestmark = pytest.mark.slow

SAMPLE_IMAGES = CHECKOUT / "sample_images"
CLASSES = 6
PER_CLASS = {"Training": 6, "Test": 4}


def with_label(images):
    label_of = udf(lambda path: path.split("/")[-2])
    return images.withColumn("label", label_of("image.origin"))


@pytest.fixture(scope="module")
def fruit(storage, tmp_path_factory):
    """Return the URI of six classes of sample images in the bucket: Training/ and Test/."""
    root = tmp_path_factory.mktemp("images")
    for part, count in PER_CLASS.items():
        for folder in sorted((SAMPLE_IMAGES / part).iterdir())[:CLASSES]:
            (root / part / folder.name).mkdir(parents=True)
            for file in sorted(folder.iterdir())[:count]:
                (root / part / folder.name / file.name).write_bytes(file.read_bytes())
    location = storage.location("images", "seed workflow")
    mirror_folder(root, storage, location=location)
    return location.uri


# Spark ML's PCA has all 2,048 eigenvectors computed, whatever k: in minutes where others compute.
@pytest.mark.timeout(600)
def test_features_of_resnet50_are_reduced_to_95_percent_of_their_variance(
    spark, storage, fruit, tmp_path
):
    df = with_label(ImageSchema.readImages(f"{fruit}/Training", recursive=True))
    featurizer = DeepImageFeaturizer(
        inputCol="image",
        outputCol="features",
        modelName="ResNet50",
        # The one thing that SparkDL had not: ImageNet's weights of ResNet50 have to be fetched,
        # which a test must not. The workflow is the same with features that mean nothing.
        weights="random:0",
    )
    features = featurizer.transform(df).cache()

    largest = PCA(k=features.count() - 1, inputCol="features", outputCol="components")
    pca = largest.fit(features)
    explained = np.cumsum(pca.explainedVariance.toArray())
    k = int(np.argmax(explained >= 0.95)) + 1
    first = VectorSlicer(inputCol="components", outputCol="pca", indices=list(range(k)))
    target = storage.location("seed workflow", "pca").uri
    result = first.transform(pca.transform(features)).select("image.origin", "pca", "label")
    result.write.mode("overwrite").parquet(target)

    images = CLASSES * PER_CLASS["Training"]
    vectors = np.stack([row.features.toArray() for row in features.collect()])
    features.unpersist()
    assert vectors.shape == (images, 2048)
    rows = read_parquet(storage, target, tmp_path)
    assert len(rows) == rows["origin"].nunique() == images
    assert rows["label"].nunique() == CLASSES
    assert all(row.origin.startswith(f"{fruit}/Training/{row.label}/") for row in rows.itertuples())
    # Judged by what is in the bucket, not by what Spark says of it.
    variances = np.var(np.stack(rows["pca"]), axis=0)
    assert variances.shape == (k,)
    share = np.cumsum(variances) / np.var(vectors, axis=0).sum()
    assert share[-1] >= 0.95 > share[-2]
    np.testing.assert_allclose(share, explained[:k], rtol=1e-5)


@pytest.mark.timeout(600)
def test_a_classifier_on_features_is_trained_saved_loaded_and_served(
    spark, storage, fruit, stack_environment, tmp_path
):
    train = with_label(ImageSchema.readImages(f"{fruit}/Training", recursive=True))
    test = with_label(ImageSchema.readImages(f"{fruit}/Test", recursive=True))
    pipeline = learner()
    fitted = pipeline.fit(train)

    predicted = fitted.transform(test).cache()
    evaluator = MulticlassClassificationEvaluator(labelCol="labelIndex", metricName="accuracy")
    accuracy = evaluator.evaluate(predicted)
    assert predicted.count() == CLASSES * PER_CLASS["Test"]
    assert accuracy > 0.9
    expected = {row.image.origin: row for row in predicted.collect()}
    predicted.unpersist()

    saved = storage.location("seed workflow", "model").uri
    fitted.write().overwrite().save(saved)
    PipelineModel.load(saved).transform(test).createOrReplaceTempView("fruit")
    served = spark.sql(
        "SELECT label, avg(double(prediction = labelIndex)) AS accuracy, count(*) AS images "
        "FROM fruit GROUP BY label"
    ).collect()
    assert {row.label for row in served} == set(fitted.stages[1].labels)
    assert {row.images for row in served} == {PER_CLASS["Test"]}
    assert np.mean([row.accuracy for row in served]) == pytest.approx(accuracy)

    script = tmp_path / "serve.py"
    script.write_text(SERVE)
    found = elsewhere(script, saved, f"{fruit}/Test", environment=stack_environment)
    assert found.keys() == expected.keys()
    for origin, (prediction, probability) in found.items():
        assert prediction == expected[origin].prediction
        np.testing.assert_allclose(probability, expected[origin].probability.toArray(), atol=1e-6)


# What another program does with the saved pipeline.
SERVE = """
import json
import sys

from pyspark.ml import PipelineModel
from pyspark.ml.functions import vector_to_array

from toolkit.notebook import start_spark
from toolkit.sparkdl import ImageSchema

spark = start_spark()
model, images = sys.argv[1:]
predicted = PipelineModel.load(model).transform(ImageSchema.readImages(images, recursive=True))
predicted.withColumn("probability", vector_to_array("probability")).createTempView("predicted")
rows = spark.sql("SELECT image.origin, prediction, probability FROM predicted").collect()
print(json.dumps({row.origin: [row.prediction, row.probability] for row in rows}))
"""


def test_a_bad_file_does_not_fail_the_job(spark, storage, sample_files, bad_files):
    root = storage.location("images", "with a bad one", "Training")
    for file in sample_files[:8]:  # four of two classes each
        storage.write(root / file.parent.name / file.name, file.read_bytes())
    for name, content in bad_files.items():
        storage.write(root / sample_files[0].parent.name / name, content)

    df = with_label(ImageSchema.readImages(root.uri, recursive=True))
    featurizer = DeepImageFeaturizer(inputCol="image", outputCol="features", modelName=MODEL)
    rows = featurizer.transform(df).collect()
    bad = {row.image.origin.rpartition("/")[2] for row in rows if row.features is None}
    assert len(rows) == 8 + len(bad_files)
    assert bad == bad_files.keys()
    assert featurizer.badRows == len(bad_files)

    # Spark's own stages take no nulls: SparkDL's users left such files out in reading.
    readable = ImageSchema.readImages(root.uri, recursive=True, dropImageFailures=True)
    fitted = learner().fit(with_label(readable))
    predicted = fitted.transform(with_label(readable)).collect()
    assert len(predicted) == 8
    assert all(row.prediction == row.labelIndex for row in predicted)


MODEL = "EfficientNetLite0"  # its weights come with a package


def learner():
    return Pipeline(
        stages=[
            DeepImageFeaturizer(inputCol="image", outputCol="features", modelName=MODEL),
            StringIndexer(inputCol="label", outputCol="labelIndex"),
            LogisticRegression(
                labelCol="labelIndex", maxIter=20, regParam=0.05, elasticNetParam=0.3
            ),
        ]
    )


def read_parquet(storage, uri, folder):
    """Read a dataset of the bucket without Spark."""
    for entry in storage.objects(Location.parse(uri)):
        if entry.location.key.endswith(".parquet"):
            storage.download(entry.location, folder / entry.location.key.rpartition("/")[2])
    with duckdb.connect() as database:
        query = f"SELECT origin, label, pca.values AS pca FROM '{folder}/*.parquet'"
        return database.execute(query).df()


def elsewhere(script, *arguments, environment):
    """Return what a script prints, in a process and a session of its own."""
    ended = subprocess.run(
        [sys.executable, script, *arguments],
        env=os.environ | environment,
        cwd=script.parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    return json.loads(ended.stdout)
