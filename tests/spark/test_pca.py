"""PCA on the cluster gives the numbers of this process, to the last bit, and those of Spark ML."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from tests.support.vectors import LocalPartitions, vectors_of
from toolkit.errors import JobError
from toolkit.pca import fit_pca

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def test_spark_adds_up_a_tree_of_tasks_as_this_process_does(spark: SparkSession) -> None:
    """Nine partitions, one of them empty: two tasks add them up for the driver."""
    parts = np.array_split(vectors_of(60, 12, offset=3), 8)
    parts.insert(3, parts[0][:0])
    model = fit_pca(spark.sparkContext.parallelize(parts, 9), components=0.95)
    here = fit_pca(LocalPartitions([[part] for part in parts]), components=0.95)
    assert model.n_samples == 60
    for name in ("mean", "components", "explained_variance", "explained_variance_ratio"):
        assert_array_equal(getattr(model, name), getattr(here, name))


def test_unusable_vectors_on_the_cluster_are_an_error_that_says_how(spark: SparkSession) -> None:
    parts = [*np.array_split(vectors_of(60, 5), 8), np.full((1, 5), np.nan)]
    with pytest.raises(JobError, match="NaN, null or infinite") as caught:
        fit_pca(spark.sparkContext.parallelize(parts, 9))
    assert "Traceback" not in caught.value.message


def test_agrees_with_spark_ml(spark: SparkSession) -> None:
    from pyspark.ml.feature import PCA as SparkPCA  # noqa: N811 - to tell it from scikit-learn's
    from pyspark.ml.functions import array_to_vector, vector_to_array
    from pyspark.sql.functions import col

    kept = 5
    vectors = vectors_of(12, 40)
    table = pa.table({"features": pa.array(list(vectors), pa.list_(pa.float32()))})
    rows = spark.createDataFrame(table)
    dense = rows.select(array_to_vector("features").alias("features")).cache()
    reference = SparkPCA(k=kept, inputCol="features", outputCol="pca").fit(dense)

    model = fit_pca(
        LocalPartitions([[part] for part in np.array_split(vectors, 2)]), components=kept
    )

    assert_allclose(
        model.explained_variance_ratio, reference.explainedVariance.toArray(), rtol=1e-9
    )
    axes = reference.pc.toArray().T
    signs = np.sign((axes * model.components).sum(axis=1))
    rows = reference.transform(dense).select(vector_to_array(col("pca")).alias("pca")).toArrow()
    # Spark ML projects without taking the mean off.
    expected = (np.array(rows.column("pca").to_pylist()) - axes @ model.mean) * signs
    assert_allclose(model.transform(vectors), expected, rtol=1e-6, atol=1e-6)
