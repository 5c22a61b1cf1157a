"""The notebook runs from its first cell to its last, and another program reads what it leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import duckdb
import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from pyspark.ml import PipelineModel

from tests.support import CHECKOUT
from toolkit.sparkdl import ImageSchema
from toolkit.storage import Location

if TYPE_CHECKING:
    from pathlib import Path

    from nbformat import NotebookNode
    from pandas import DataFrame

    from toolkit.storage import Storage

NOTEBOOK = CHECKOUT / "docs" / "notebooks" / "sparkdl.ipynb"
SECONDS_OF_A_CELL = 240
CLASSES = 3
PER_CLASS = {"Training": 4, "Test": 2}

FEATURES = 200
# Spark's PCA of all 1,280 features takes 15 seconds of processor time.
FEWER = f"""
from pyspark.ml.feature import VectorSlicer

def fewer(features):
    features = features.withColumnRenamed("features", "all")
    slicer = VectorSlicer(inputCol="all", outputCol="features", indices=list(range({FEATURES})))
    return slicer.transform(features).drop("all")
"""

# Kept for the test: what the notebook computes and only shows.
KEEP = """
from pyspark.ml.functions import vector_to_array

kept = {
    "features": features.select(
        "image.origin", vector_to_array("features").alias("features")
    ),
    "served": spark.table("fruit").select(
        "image.origin", "label", "predicted", vector_to_array("probability").alias("probability")
    ),
}
for name, frame in kept.items():
    frame.write.mode("overwrite").parquet(f"{bucket}/notebook/{name}")
"""


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, bad_files: dict[str, bytes]) -> Path:
    """Return a folder of sample images, Training/ and Test/, with bad files in both."""
    root = tmp_path_factory.mktemp("images") / "few fruits"
    for part, count in PER_CLASS.items():
        for folder in sorted((CHECKOUT / "sample_images" / part).iterdir())[:CLASSES]:
            (root / part / folder.name).mkdir(parents=True)
            for file in sorted(folder.iterdir())[:count]:
                (root / part / folder.name / file.name).write_bytes(file.read_bytes())
        for name, content in bad_files.items():
            (root / part / folder.name / name).write_bytes(content)
    return root


def on_images_of(folder: Path) -> NotebookNode:
    """Return the notebook with a user's images, all of them, and a PCA of few features."""
    notebook = nbformat.read(NOTEBOOK, as_version=nbformat.NO_CONVERT)
    for old, new in (
        ("import_images()", f"import_images({str(folder)!r})"),
        ("PART = 0.3", "PART = 1.0"),
        ("featurizer.transform(df).cache()", "fewer(featurizer.transform(df)).cache()"),
    ):
        (cell,) = (each for each in notebook.cells if old in each.source)
        cell.source = cell.source.replace(old, new)
    (stop,) = (i for i, each in enumerate(notebook.cells) if "stop_spark()" in each.source)
    notebook.cells.insert(stop, nbformat.v4.new_code_cell(KEEP))
    notebook.cells.insert(0, nbformat.v4.new_code_cell(FEWER))
    return notebook


@pytest.fixture(scope="module")
def bucket(storage, photos, stack_environment, tmp_path_factory) -> str:
    """Run the notebook; return the URI of the bucket with what it wrote."""
    home = tmp_path_factory.mktemp("notebook")
    # The kernel writes its history and its ports somewhere: not to the home of who runs the tests.
    own = {"IPYTHONDIR": "ipython", "JUPYTER_RUNTIME_DIR": "runtime", "JUPYTER_CONFIG_DIR": "conf"}
    client = NotebookClient(
        on_images_of(photos),
        timeout=SECONDS_OF_A_CELL,
        kernel_name="python3",
        resources={"metadata": {"path": str(home)}},
    )
    with pytest.MonkeyPatch.context() as environment:
        for name, value in stack_environment.items():
            environment.setenv(name, value)
        for name, folder in own.items():
            environment.setenv(name, str(home / folder))
        client.execute()  # raises what a cell raises
    return f"s3a://{storage.name}"


def read_parquet(storage: Storage, uri: str, folder: Path) -> DataFrame:
    """Read a dataset of the bucket without Spark."""
    for entry in storage.objects(Location.parse(uri)):
        if entry.location.key.endswith(".parquet"):
            storage.download(entry.location, folder / entry.location.key.rpartition("/")[2])
    with duckdb.connect() as database:
        return database.execute(f"SELECT * FROM '{folder}/*.parquet'").df()


@pytest.mark.timeout(600)
def test_features_are_reduced_to_95_percent_of_their_variance(bucket, storage, photos, tmp_path):
    (tmp_path / "features").mkdir()
    features = read_parquet(storage, f"{bucket}/notebook/features", tmp_path / "features")
    rows = read_parquet(storage, f"{bucket}/notebook/pca", tmp_path)
    count = CLASSES * PER_CLASS["Training"]
    assert len(rows) == rows["origin"].nunique() == count
    assert rows["label"].nunique() == CLASSES
    images = f"{bucket}/images/{photos.name}"
    assert all(
        row.origin.startswith(f"{images}/Training/{row.label}/") for row in rows.itertuples()
    )
    # Judged by what is in the bucket, not by what Spark says of it.
    vectors = np.stack(features["features"])
    assert vectors.shape == (count, FEATURES)
    components = np.stack([each["values"] for each in rows["pca"]])
    share = np.cumsum(np.var(components, axis=0)) / np.var(vectors, axis=0).sum()
    assert share[-1] >= 0.95 > share[-2]


@pytest.mark.timeout(600)
def test_a_saved_pipeline_serves_in_another_program_what_it_served_in_the_notebook(
    bucket, spark, storage, photos, tmp_path
):
    served = read_parquet(storage, f"{bucket}/notebook/served", tmp_path)
    assert len(served) == CLASSES * PER_CLASS["Test"]
    assert (served["label"] == served["predicted"]).mean() > 0.8
    model = PipelineModel.load(f"{bucket}/notebook/model")
    images = ImageSchema.readImages(
        f"{bucket}/images/{photos.name}/Test", recursive=True, dropImageFailures=True
    )
    found = {row.image.origin: row for row in model.transform(images.coalesce(1)).collect()}
    assert found.keys() == set(served["origin"])
    labels = model.stages[1].labels
    for row in served.itertuples():
        ours = found[row.origin]
        assert labels[int(ours.prediction)] == row.predicted
        np.testing.assert_allclose(ours.probability.toArray(), row.probability, atol=1e-6)
