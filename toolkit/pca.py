"""Reduce feature vectors by principal component analysis, fitted in one pass over Spark partitions.

Every partition is reduced to its number of vectors, their mean and their scatter matrix about that
mean; these are added up by a tree of Spark tasks, and the driver makes the eigendecomposition.
Everything is float64 and happens in a fixed order, so that a second run gives the same numbers.
"""

from __future__ import annotations

import zipfile
from collections import deque
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, BinaryIO, TypeAlias

import numpy as np

from toolkit.errors import JobError, RequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from os import PathLike

    import pyarrow as pa
    from numpy.typing import NDArray
    from pyspark.sql import DataFrame

    FloatArray = NDArray[np.float64]

__all__ = ["PCAModel", "fit_pca", "parse_components"]

# A part of the variance (float) or a number of components (int).
Components: TypeAlias = float | int

# Vectors that are multiplied at once: enough for BLAS to run at its full rate, 34 MB at 2,048
# dimensions.
_BLOCK_ROWS = 2048

# Partial sums that a task, and at last the driver, holds at a time: 8 x 17 MB at 2,048 dimensions.
_FAN_IN = 8

# Variances are known to about d * eps of the largest one (the backward error of a symmetric
# eigensolver; 5e-13 at d = 2,048): what lies below this part of it is rounding, not a direction.
_RESOLUTION = 1e-12

_STATE_SCHEMA = "position int, n_samples bigint, mean binary, upper binary, fault string"


@dataclass(frozen=True, eq=False)
class PCAModel:
    """A fitted principal component analysis.

    Parameters
    ----------
    mean : ndarray of shape (d,), float64
        The mean of the vectors it was fitted to.
    components : ndarray of shape (k, d), float64
        One direction of unit length a row, in descending order of variance; in each the entry of
        largest magnitude is positive.
    explained_variance : ndarray of shape (d,), float64
        The variance along every direction, not only the k kept, in descending order; the divisor is
        ``n_samples - 1``.
    explained_variance_ratio : ndarray of shape (k,), float64
        The part of the total variance that each kept direction has, 0 to 1.
    n_samples : int
        The number of vectors it was fitted to.
    """

    mean: FloatArray
    components: FloatArray
    explained_variance: FloatArray
    explained_variance_ratio: FloatArray
    n_samples: int

    def transform(self, vectors: NDArray[np.floating]) -> FloatArray:
        """Project vectors onto the components.

        Parameters
        ----------
        vectors : ndarray of shape (n, d)

        Returns
        -------
        ndarray of shape (n, k), float64
            Coordinates about the mean.

        Raises
        ------
        ValueError
            The vectors do not have d dimensions.
        """
        if vectors.ndim != 2 or vectors.shape[1] != self.mean.size:  # noqa: PLR2004 - rows, columns
            raise ValueError(
                f"vectors of shape {vectors.shape} do not fit a PCA of {self.mean.size} dimensions"
            )
        return (vectors.astype(np.float64) - self.mean) @ self.components.T

    def project(
        self, vectors: DataFrame, *, input_col: str = "features", output_col: str = "pca"
    ) -> DataFrame:
        """Add a column of projected vectors; all other columns stay.

        Parameters
        ----------
        vectors
            Has a column of arrays of d floats.
        input_col
            The name of that column.
        output_col
            The name of the new column: array<float> of length k.

        Returns
        -------
        DataFrame
            Lazy, as every transformation of Spark: a vector that does not fit fails its action.

        Raises
        ------
        RequestError
            There is no such input column of float arrays, or there is an output column already.
        """
        from pyspark.sql.types import ArrayType, FloatType, StructField, StructType

        _check_vector_column(vectors, input_col)
        if output_col in vectors.columns:
            raise RequestError(
                f"The column {output_col!r} exists already.",
                remedy=f"Choose another output_col; the columns are {', '.join(vectors.columns)}.",
            )
        column = StructField(output_col, ArrayType(FloatType()))
        schema = StructType([*vectors.schema.fields, column])
        return vectors.mapInArrow(_projector(self, input_col, output_col), schema)

    def save(self, file: str | PathLike[str] | BinaryIO) -> None:
        """Write the model as npz: one array for each parameter, under its name.

        Parameters
        ----------
        file
            A path (numpy adds ``.npz`` where it is missing) or a binary file, for example BytesIO.
        """
        np.savez(
            file,
            mean=self.mean,
            components=self.components,
            explained_variance=self.explained_variance,
            explained_variance_ratio=self.explained_variance_ratio,
            n_samples=np.int64(self.n_samples),
        )

    @classmethod
    def load(cls, file: str | PathLike[str] | BinaryIO) -> PCAModel:
        """Read a model that `save` wrote.

        Raises
        ------
        JobError
            The file holds no such model.
        """
        try:
            with np.load(file) as arrays:
                return cls(
                    mean=arrays["mean"],
                    components=arrays["components"],
                    explained_variance=arrays["explained_variance"],
                    explained_variance_ratio=arrays["explained_variance_ratio"],
                    n_samples=int(arrays["n_samples"]),
                )
        except (AttributeError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as exc:
            raise JobError(
                f"{file} holds no PCA model: {exc}", remedy="Fit it again: run with --fresh."
            ) from exc


def parse_components(text: str) -> Components:
    """Read what a user asks of a PCA: a part of the variance, or a number of components.

    Parameters
    ----------
    text
        A whole number is a number of components, at least 1. A number with a point is the part of
        the variance to explain, over 0 and at most 1: "1.0" is all of it, "1" is one component.

    Returns
    -------
    float or int
        As `fit_pca` takes it.

    Raises
    ------
    RequestError
        It is neither.
    """
    try:
        components: Components = int(text)
    except ValueError:
        try:
            components = float(text)
        except ValueError:
            raise _bad_components(text) from None
    _check_components(components)
    return components


def fit_pca(
    features: DataFrame, *, input_col: str = "features", components: Components = 0.95
) -> PCAModel:
    """Fit a principal component analysis to the vectors of a DataFrame, in one pass.

    The mean and the scatter matrix of each partition are merged by the update of Chan, Golub and
    LeVeque, "Algorithms for computing the sample variance", The American Statistician 37 (1983),
    which unlike a Gram matrix corrected at the end loses no digits to a large mean.

    Where the data has more partitions than Spark runs at once, they are taken several to a task, so
    that there are no more matrices than tasks. A task needs memory for about 4 matrices of d x d
    float64 (130 MB at d = 2,048), the driver for about 8. As eight packed matrices pass through
    Spark's limit on results (`spark.driver.maxResultSize`, 1 GB), d may be up to about 5,000.

    Parameters
    ----------
    features
        Has a column of arrays of floats (float or double), all of the same length d.
    input_col
        The name of that column.
    components
        A float is the part of the variance to explain, over 0 and at most 1: the smallest number of
        components is kept whose ratios add up to it. An int is the number of components, from 1 to
        the rank of the data.

    Returns
    -------
    PCAModel

    Raises
    ------
    RequestError
        There is no such column of float arrays; `components` is out of its range, or larger than
        the rank, which is the number of directions with more than 1e-12 of the largest variance
        (at most one less than there are vectors).
    JobError
        The vectors are of different lengths, missing, NaN or infinite, or have no variance.
    """
    _check_components(components)
    _check_vector_column(features, input_col)
    # Fewer tasks than that would leave cores idle; more would only make more matrices.
    tasks = features.sparkSession.sparkContext.defaultParallelism
    return _model(_total_scatter(features, input_col=input_col, tasks=tasks), components)


def _check_components(components: Components) -> None:
    valid = 0 < components <= 1 if isinstance(components, float) else components >= 1
    if not valid:
        raise _bad_components(components)


def _bad_components(components: Components | str) -> RequestError:
    return RequestError(
        f"components must be a part of the variance over 0 and at most 1.0, such as 0.95, or a "
        f"whole number of components from 1, such as 25; got {components}.",
        remedy="Give --components 0.95, or --components with the number that you want.",
    )


def _check_vector_column(vectors: DataFrame, name: str) -> None:
    from pyspark.sql.types import ArrayType, DoubleType, FloatType

    if name not in vectors.columns:
        raise RequestError(
            f"There is no column {name!r}.",
            remedy=f"Name one of {', '.join(vectors.columns)} as input_col.",
        )
    data_type = vectors.schema[name].dataType
    if not (
        isinstance(data_type, ArrayType)
        and isinstance(data_type.elementType, FloatType | DoubleType)
    ):
        raise RequestError(
            f"The column {name!r} is {data_type.simpleString()}, not array<float>.",
            remedy="Name a column of feature vectors as input_col.",
        )


# --- from scatter to model, on the driver ---


@dataclass(frozen=True, eq=False)
class _Scatter:
    """Number, mean (d) and scatter matrix about it (upper triangle, row by row) of some vectors."""

    n_samples: int
    mean: FloatArray
    upper: FloatArray


def _model(scatter: _Scatter, components: Components) -> PCAModel:
    """Decompose the covariance and keep as many components as asked for."""
    variances, directions = _principal_axes(scatter)
    if not variances[0] > 0:
        raise JobError(
            f"The {scatter.n_samples} feature vectors are all the same, so there is no variance to "
            "explain.",
            remedy="Give at least two different images.",
        )
    rank = int(np.count_nonzero(variances > _RESOLUTION * variances[0]))
    rank = min(rank, scatter.n_samples - 1)
    ratios = variances / variances.sum()
    kept = _number_of_components(components, ratios=ratios, rank=rank)
    return PCAModel(
        mean=scatter.mean,
        components=_with_fixed_signs(directions[:kept]),
        explained_variance=variances,
        explained_variance_ratio=ratios[:kept],
        n_samples=scatter.n_samples,
    )


def _principal_axes(scatter: _Scatter) -> tuple[FloatArray, FloatArray]:
    """Return the variances (d), descending, and the directions (d, d) they belong to, as rows."""
    dimensions = scatter.mean.size
    covariance = np.zeros((dimensions, dimensions))
    covariance[_upper_triangle(dimensions)] = scatter.upper / max(scatter.n_samples - 1, 1)
    variances, directions = np.linalg.eigh(covariance, UPLO="U")
    # Rounding makes variances of zero slightly negative.
    return np.maximum(variances[::-1], 0.0), directions.T[::-1]


def _number_of_components(components: Components, *, ratios: FloatArray, rank: int) -> int:
    if isinstance(components, float):
        # A sum that is 0.95 in real numbers may come out a few eps below it; without the allowance
        # it would cost a component more. The number is counted from 1.
        reached = np.cumsum(ratios) >= components - _RESOLUTION
        return min(int(np.argmax(reached)) + 1, rank)
    if components > rank:
        raise RequestError(
            f"{components} components were asked for, but the features vary in {rank} "
            f"direction{'' if rank == 1 else 's'} only (their rank).",
            remedy=f"Ask for at most {rank}, or for a part of the variance such as 0.95.",
        )
    return components


def _with_fixed_signs(directions: FloatArray) -> FloatArray:
    """Turn each direction (a row) so that its entry of largest magnitude is positive.

    A direction is as good as its opposite; without a rule the library's choice, and with it the
    result of a run, would be chance. The rule is that of `sklearn.utils.extmath.svd_flip` with
    ``u_based_decision=False``.
    """
    largest = np.abs(directions).argmax(axis=1)
    signs: FloatArray = np.sign(directions[np.arange(len(directions)), largest])
    return directions * signs[:, np.newaxis]


# --- the scatter of everything, by a tree of tasks ---


def _total_scatter(features: DataFrame, *, input_col: str, tasks: int) -> _Scatter:
    """Add up the scatter of at most so many tasks, eight at a time until eight are left.

    Positions of tasks give the order of addition.
    """
    from pyspark.sql import functions as F  # noqa: N812 - Spark's own custom

    states = (
        features.select(input_col).coalesce(tasks).mapInArrow(_scatter_of_partition, _STATE_SCHEMA)
    )
    while tasks > _FAN_IN:
        group = F.floor(F.col("position") / _FAN_IN).cast("int")
        states = (
            states.withColumn("group", group)
            .groupBy("group")
            .applyInArrow(_merge_group, _STATE_SCHEMA)
        )
        tasks = -(-tasks // _FAN_IN)
    try:
        total = _merge_rows(states.toArrow())
    except _UnusableFeaturesError as exc:
        raise JobError(
            f"No PCA can be made of the column {input_col!r}: {exc}.",
            remedy="Compute the features again: run with --fresh.",
        ) from exc
    if total is None:
        raise JobError(
            f"No PCA can be made of the column {input_col!r}: there are no vectors.",
            remedy="See the quarantine for why no image was featurized.",
        )
    return total


class _UnusableFeaturesError(ValueError):
    """The vectors are such that no PCA can be made of them; the text says how."""


def _scatter_of_partition(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Reduce the vectors of one partition to one state, or to none where there are no vectors.

    What is wrong with the vectors is told in the state and not raised: Spark would try again three
    times, and wrap it in two tracebacks.
    """
    from pyspark import TaskContext

    context = TaskContext.get()
    position = context.partitionId() if context else 0
    try:
        state = _scatter_of(_vectors(batch.column(0)) for batch in batches if batch.num_rows)
    except _UnusableFeaturesError as exc:
        deque(batches, maxlen=0)  # Spark's worker protocol wants its input read to the end
        yield _fault_row(position, str(exc))
    else:
        if state is not None:
            yield _state_row(position, state)


def _scatter_of(batches: Iterable[NDArray[np.floating]]) -> _Scatter | None:
    """Compute the scatter of vectors that come in batches of shape (n, d)."""
    partition: _Accumulator | None = None
    for vectors in batches:
        if partition is None:
            partition = _Accumulator(origin=vectors[0])
        partition.add(vectors)
    return partition.finish() if partition else None


class _Accumulator:
    """The scatter of the vectors of one partition, gathered in blocks of a fixed size.

    The size of the batches that Spark sends thus has no influence on speed or on rounding.

    Parameters
    ----------
    origin : ndarray of shape (d,)
        A vector of the partition. All are taken relative to it, which is exact for near values:
        vectors that are all the same have a scatter of exactly zero, however large they are.
    """

    def __init__(self, origin: NDArray[np.floating]) -> None:
        dimensions = origin.size
        self._origin = origin.astype(np.float64)
        self._n_samples = 0
        self._mean = np.zeros(dimensions)
        self._scatter = np.zeros((dimensions, dimensions))
        # The row beyond the vectors takes the difference between two means.
        self._block = np.empty((_BLOCK_ROWS + 1, dimensions))
        self._filled = 0

    def add(self, vectors: NDArray[np.floating]) -> None:
        """Take up vectors of shape (n, d)."""
        _check_dimensions(self._origin, vectors[0])
        while len(vectors):
            start = self._filled
            part = vectors[: _BLOCK_ROWS - start]
            self._filled += len(part)
            with np.errstate(invalid="ignore"):  # infinite minus infinite: found below
                np.subtract(part, self._origin, out=self._block[start : self._filled])
            if self._filled == _BLOCK_ROWS:
                self._absorb()
            vectors = vectors[len(part) :]

    def finish(self) -> _Scatter:
        """Return the scatter of all vectors taken up."""
        if self._filled:
            self._absorb()
        upper = self._scatter[_upper_triangle(self._origin.size)]
        return _Scatter(n_samples=self._n_samples, mean=self._origin + self._mean, upper=upper)

    def _absorb(self) -> None:
        """Merge the block into the sums (Chan et al., 1983, equation 2.1, for a matrix).

        The rank-one term of the merger is made by the same matrix product as the scatter of the
        block, as one more row of it (as in `sklearn.decomposition.IncrementalPCA`).
        """
        new = self._filled
        vectors = self._block[:new]
        with np.errstate(invalid="ignore"):
            block_mean = vectors.mean(axis=0)
        if not np.isfinite(block_mean).all():
            raise _UnusableFeaturesError("some of its numbers are NaN, null or infinite")
        vectors -= block_mean
        total = self._n_samples + new
        difference = block_mean - self._mean
        self._block[new] = difference * np.sqrt(self._n_samples * new / total)
        rows = self._block[: new + 1]
        self._scatter += rows.T @ rows  # numpy gives A.T @ A to BLAS' syrk: half the arithmetic
        self._mean += difference * (new / total)
        self._n_samples = total
        self._filled = 0


def _merge(a: _Scatter, b: _Scatter) -> _Scatter:
    """Add two scatters up (Chan et al., 1983, equation 2.1, for a matrix)."""
    _check_dimensions(a.mean, b.mean)
    total = a.n_samples + b.n_samples
    difference = b.mean - a.mean
    between = np.outer(difference * (a.n_samples * b.n_samples / total), difference)
    return _Scatter(
        n_samples=total,
        mean=a.mean + difference * (b.n_samples / total),
        upper=a.upper + b.upper + between[_upper_triangle(difference.size)],
    )


def _check_dimensions(a: NDArray[np.floating], b: NDArray[np.floating]) -> None:
    if a.size != b.size:
        shorter, longer = sorted((a.size, b.size))
        raise _UnusableFeaturesError(f"its vectors have different lengths, {shorter} and {longer}")


def _upper_triangle(dimensions: int) -> NDArray[np.bool_]:
    """Return the mask of shape (d, d) that picks the upper triangle row by row."""
    return np.triu(np.ones((dimensions, dimensions), dtype=np.bool_))


# --- Arrow at the border ---


def _vectors(column: pa.ListArray) -> NDArray[np.floating]:
    """View a column of lists, all of one length, as an array of shape (n, d) without a copy."""
    if column.null_count:
        raise _UnusableFeaturesError("some of its vectors are null")
    lengths = column.value_lengths().to_numpy()
    shortest, longest = int(lengths.min()), int(lengths.max())
    if shortest != longest:
        raise _UnusableFeaturesError(
            f"its vectors have different lengths, {shortest} and {longest}"
        )
    if not longest:
        raise _UnusableFeaturesError("its vectors are empty")
    flat: NDArray[np.floating] = column.flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(len(column), longest)


def _projector(
    model: PCAModel, input_col: str, output_col: str
) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """Make the function that adds the projected vectors to Arrow batches."""

    def project(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        kept = len(model.components)
        for batch in batches:
            if not batch.num_rows:
                continue
            projected = model.transform(_vectors(batch.column(input_col))).astype(np.float32)
            offsets = np.arange(0, projected.size + 1, kept, dtype=np.int32)
            column = pa.ListArray.from_arrays(offsets, projected.ravel())
            yield pa.RecordBatch.from_arrays(
                [*batch.columns, column], names=[*batch.schema.names, output_col]
            )

    return project


def _state_row(position: int, state: _Scatter) -> pa.RecordBatch:
    return _row(position, state.n_samples, state.mean.tobytes(), state.upper.tobytes(), None)


def _fault_row(position: int, fault: str) -> pa.RecordBatch:
    return _row(position, 0, b"", b"", fault)


def _row(
    position: int, n_samples: int, mean: bytes, upper: bytes, fault: str | None
) -> pa.RecordBatch:
    import pyarrow as pa

    return pa.RecordBatch.from_arrays(
        [
            pa.array([position], pa.int32()),
            pa.array([n_samples], pa.int64()),
            pa.array([mean], pa.binary()),
            pa.array([upper], pa.binary()),
            pa.array([fault], pa.string()),
        ],
        names=["position", "n_samples", "mean", "upper", "fault"],
    )


def _merge_rows(table: pa.Table) -> _Scatter | None:
    """Add up the states of a table in the order of their positions; None where there are none."""
    states = []
    for row in table.sort_by("position").to_batches(max_chunksize=1):
        fault = row.column("fault")[0].as_py()
        if fault:
            raise _UnusableFeaturesError(fault)
        states.append(
            _Scatter(
                n_samples=row.column("n_samples")[0].as_py(),
                mean=np.frombuffer(row.column("mean")[0].as_buffer()),
                upper=np.frombuffer(row.column("upper")[0].as_buffer()),
            )
        )
    return reduce(_merge, states) if states else None


def _merge_group(table: pa.Table) -> pa.Table:
    """Add up the states of one branch of the tree."""
    import pyarrow as pa

    position = table.column("group")[0].as_py()
    try:
        state = _merge_rows(table)
    except _UnusableFeaturesError as exc:
        return pa.Table.from_batches([_fault_row(position, str(exc))])
    # Spark makes no group without rows.
    return pa.Table.from_batches([] if state is None else [_state_row(position, state)])
