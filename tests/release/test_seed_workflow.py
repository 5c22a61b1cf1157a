"""What SparkDL's users wrote, with ResNet50, on the local stack: nothing changed but the imports.

`test_sparkdl_notebook.py` does the same with a smaller network.
"""

from __future__ import annotations

import duckdb
import numpy as np
import pytest
from pyspark.ml.feature import PCA, VectorSlicer
from pyspark.sql.functions import udf

from tests.support import CHECKOUT
from toolkit.images.listing import mirror_folder
from toolkit.sparkdl import DeepImageFeaturizer, ImageSchema
from toolkit.storage import Location

SAMPLE_IMAGES = CHECKOUT / "sample_images"
CLASSES = 6
PER_CLASS = 6


def with_label(images):
    label_of = udf(lambda path: path.split("/")[-2])
    return images.withColumn("label", label_of("image.origin"))


@pytest.fixture(scope="module")
def fruit(storage, tmp_path_factory):
    """Return the URI of six classes of sample images in the bucket."""
    root = tmp_path_factory.mktemp("images")
    for folder in sorted((SAMPLE_IMAGES / "Training").iterdir())[:CLASSES]:
        (root / "Training" / folder.name).mkdir(parents=True)
        for file in sorted(folder.iterdir())[:PER_CLASS]:
            (root / "Training" / folder.name / file.name).write_bytes(file.read_bytes())
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

    images = CLASSES * PER_CLASS
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


def read_parquet(storage, uri, folder):
    """Read a dataset of the bucket without Spark."""
    for entry in storage.objects(Location.parse(uri)):
        if entry.location.key.endswith(".parquet"):
            storage.download(entry.location, folder / entry.location.key.rpartition("/")[2])
    with duckdb.connect() as database:
        query = f"SELECT origin, label, pca.values AS pca FROM '{folder}/*.parquet'"
        return database.execute(query).df()
