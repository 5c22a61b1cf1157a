"""Feature vectors in the store -> principal components in the store, on Spark."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa

from toolkit.dataset import Dataset, matrix, vectors_column
from toolkit.jobs import run_tasks, slots
from toolkit.parts import grouped

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from pyspark import RDD, Broadcast
    from pyspark.sql import SparkSession

    from toolkit.dataset import PartFile
    from toolkit.pca import PCAModel

__all__ = ["Projection", "project", "read_vectors"]

# Files of results hold so much at most: large files for readers, little memory for the tasks that
# write them; and as many files as keep every core busy.
_PARTS_PER_RESULT = 64
_RESULT_BYTES = 64 << 20
_RESULTS_PER_SLOT = 4


@dataclass(frozen=True)
class _ReadVectors:
    """Reads the vectors of some parts, one after another, on an executor."""

    features: Dataset
    dimensions: int

    def __call__(self, numbers: Sequence[int]) -> Iterator[NDArray[np.float32]]:
        for number in numbers:  # none ahead: beside the matrices, a worker's memory is at its peak
            column = self.features.read(number, columns=["features"])["features"]
            yield matrix(column, dimensions=self.dimensions)


def read_vectors(
    spark: SparkSession, features: Dataset, *, dimensions: int
) -> RDD[NDArray[np.float32]]:
    """Distribute the vectors of a dataset, one partition a core: each makes one large matrix.

    Parameters
    ----------
    spark
        The session.
    features
        Has a column ``features`` of lists of floats.
    dimensions
        Length of the lists, d.

    Returns
    -------
    RDD
        An array of shape (n, d), float32, for each part, read when it is needed.
    """
    numbers = [file.number for file in features.files()]
    partitions = min(slots(spark), len(numbers))
    # Dealt like cards: parts become smaller towards the end.
    dealt = [numbers[start::partitions] for start in range(partitions)]
    read = _ReadVectors(features, dimensions)
    return spark.sparkContext.parallelize(dealt, partitions).flatMap(read)


class Projection(NamedTuple):
    """What was written: number of rows; label, first and second component of some of them."""

    rows: int
    sample: list[tuple[str, float, float]]


@dataclass(frozen=True)
class _ProjectParts:
    """The task: projects some parts of the features and writes one file of the result."""

    pca: Broadcast[PCAModel]
    features: Dataset
    result: Dataset
    sampled: int

    def __call__(self, task: tuple[int, Sequence[int]]) -> Projection:
        number, parts = task
        table = pa.concat_tables(map(self._projected, self.features.read_each(parts)))
        self.result.write(number, table)
        rows = table.select(["label", "pca"]).slice(length=self.sampled).to_pylist()
        sample = [(row["label"], row["pca"][0], (*row["pca"], 0.0)[1]) for row in rows]
        return Projection(int(table.num_rows), sample)

    def _projected(self, table: pa.Table) -> pa.Table:
        pca = self.pca.value
        vectors = matrix(table["features"], dimensions=pca.mean.size)
        column = vectors_column(pca.transform(vectors).astype(np.float32))
        return table.drop_columns(["features"]).append_column("pca", column)


def project(
    spark: SparkSession, pca: PCAModel, features: Dataset, *, result: Dataset, sample: int = 0
) -> Projection:
    """Project the vectors of a dataset onto the components.

    Parameters
    ----------
    spark
        The session.
    pca
        The components, k of them.
    features
        Has columns ``label``, and ``features`` of vectors.
    result
        Gets the other columns of `features`, and ``pca``: lists of k floats. What it held before is
        deleted.
    sample
        About how many rows to bring back, some of every file.
    """
    shares = _shares(features.files(), pca, slots=slots(spark))
    result.clear()
    task = _ProjectParts(
        spark.sparkContext.broadcast(pca), features, result, sampled=-(-sample // len(shares))
    )
    rows = 0
    sampled: list[tuple[str, float, float]] = []
    with closing(run_tasks(spark, enumerate(shares), task)) as done:
        for each in done:
            rows += each.rows
            sampled += each.sample[: sample - len(sampled)]
    result.complete()
    return Projection(rows, sampled)


def _shares(files: Sequence[PartFile], pca: PCAModel, *, slots: int) -> list[list[int]]:
    """Group consecutive parts of features to what makes one file of the result."""
    kept = len(pca.components) / pca.mean.size
    every_slot = sum(file.size for file in files) / (_RESULTS_PER_SLOT * slots)
    most = min(every_slot, _RESULT_BYTES / kept)
    groups = grouped(files, size=lambda file: file.size, bounds=lambda: (_PARTS_PER_RESULT, most))
    return [[file.number for file in group] for group in groups]
