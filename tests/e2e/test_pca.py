"""PCA against Spark ML, whose first fit costs seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.testing import assert_allclose

from tests.support.vectors import LocalPartitions, vectors_of
from toolkit.pca import fit_pca

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


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
