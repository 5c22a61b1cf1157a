"""PCA on the cluster: the numbers are those of tests/unit/test_pca.py, to the last bit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.testing import assert_array_equal

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
