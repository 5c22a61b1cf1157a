"""Reduce feature vectors by principal component analysis, fitted in one pass over Spark partitions.

Every partition is reduced to its number of vectors, their mean and their scatter matrix about that
mean; these are added up by a tree of Spark tasks, and the driver makes the eigendecomposition.
Everything is float64 and happens in a fixed order, so that a second run gives the same numbers.
"""

from __future__ import annotations

import zipfile
from collections import deque
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, BinaryIO, TypeAlias

import numpy as np

from toolkit.errors import JobError, RequestError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from os import PathLike

    from numpy.typing import NDArray
    from pyspark import RDD

    FloatArray = NDArray[np.float64]

__all__ = ["PCAModel", "fit_pca", "parse_components"]

# A part of the variance (float) or a number of components (int).
Components: TypeAlias = float | int

# Vectors that are multiplied at once: enough for BLAS to run at its full rate, 17 MB at 2,048
# dimensions.
_BLOCK_ROWS = 1024

# Partial sums that a task, and at last the driver, holds at a time: 8 x 17 MB at 2,048 dimensions.
_FAN_IN = 8

# Variances are known to about d * eps of the largest one (the backward error of a symmetric
# eigensolver; 5e-13 at d = 2,048): what lies below this part of it is rounding, not a direction.
_RESOLUTION = 1e-12


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


def fit_pca(vectors: RDD[NDArray[np.floating]], *, components: Components = 0.95) -> PCAModel:
    """Fit a principal component analysis to distributed vectors, in one pass.

    The mean and the scatter matrix of each partition are merged by the update of Chan, Golub and
    LeVeque, "Algorithms for computing the sample variance", The American Statistician 37 (1983),
    which unlike a Gram matrix corrected at the end loses no digits to a large mean.

    A partition makes one matrix: a few a core are enough. A task needs memory for about 4 matrices
    of d x d float64 (130 MB at d = 2,048), the driver for about 8. As eight packed matrices pass
    through Spark's limit on results (`spark.driver.maxResultSize`, 1 GB), d may be up to about
    5,000.

    Parameters
    ----------
    vectors
        Arrays of shape (n, d), any floating type; n may differ from one to the next and be 0.
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
        `components` is out of its range, or larger than the rank, which is the number of directions
        with more than 1e-12 of the largest variance (at most one less than there are vectors).
    JobError
        The vectors are of different lengths, missing, NaN or infinite, or have no variance.
    """
    _check_components(components)
    return _model(_total_scatter(vectors), components)


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
    covariance = _unpacked(scatter.upper / max(scatter.n_samples - 1, 1), scatter.mean.size)
    # LAPACK is a tenth faster on the lower triangle.
    variances, directions = np.linalg.eigh(covariance.T, UPLO="L")
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
    negative = -directions.min(axis=1) > directions.max(axis=1)
    return directions * np.where(negative, -1.0, 1.0)[:, np.newaxis]


# --- the scatter of everything, by a tree of tasks ---


def _total_scatter(vectors: RDD[NDArray[np.floating]]) -> _Scatter:
    """Add up the scatter of all partitions, eight at a time until eight are left.

    Numbers of partitions give the order of addition.
    """
    states = vectors.mapPartitionsWithIndex(_scatter_of_partition)
    count = vectors.getNumPartitions()
    while count > _FAN_IN:
        count = -(-count // _FAN_IN)
        states = states.map(_in_group).groupByKey(count).map(_merge_group)
    try:
        total = _merge_states(states.collect())
    except _UnusableFeaturesError as exc:
        raise JobError(
            f"No PCA can be made of the features: {exc}.",
            remedy="Compute the features again: run with --fresh.",
        ) from exc
    if total is None:
        raise JobError(
            "No PCA can be made of the features: there are no vectors.",
            remedy="See the quarantine for why no image was featurized.",
        )
    return total


class _UnusableFeaturesError(ValueError):
    """The vectors are such that no PCA can be made of them; the text says how."""


# The number of a partition, or of a group of them, and its scatter; or what is wrong with its
# vectors; or nothing, where it has none. A fault is told and not raised: Spark would try again
# three times, and wrap it in two tracebacks.
_State: TypeAlias = "tuple[int, _Scatter | str | None]"


def _scatter_of_partition(number: int, blocks: Iterable[NDArray[np.floating]]) -> Iterator[_State]:
    """Reduce the vectors of one partition to one state."""
    try:
        yield number, _scatter_of(block for block in blocks if len(block))
    except _UnusableFeaturesError as exc:
        deque(blocks, maxlen=0)  # Spark uses a worker again only if it has read its input
        yield number, str(exc)


def _in_group(state: _State) -> tuple[int, _State]:
    return state[0] // _FAN_IN, state


def _merge_group(group: tuple[int, Iterable[_State]]) -> _State:
    """Add up the states of one branch of the tree."""
    number, states = group
    try:
        return number, _merge_states(states)
    except _UnusableFeaturesError as exc:
        return number, str(exc)


def _merge_states(states: Iterable[_State]) -> _Scatter | None:
    """Add up states in the order of their numbers; None where there are no vectors."""
    total = None
    for _, state in sorted(states, key=itemgetter(0)):
        if isinstance(state, str):
            raise _UnusableFeaturesError(state)
        if state is not None:
            total = state if total is None else _merge(total, state)
    return total


def _scatter_of(batches: Iterable[NDArray[np.floating]]) -> _Scatter | None:
    """Compute the scatter of vectors that come in batches of shape (n, d)."""
    partition: _Accumulator | None = None
    for vectors in batches:
        if not vectors.shape[1]:
            raise _UnusableFeaturesError("its vectors are empty")
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
        mean = self._origin + self._mean
        return _Scatter(n_samples=self._n_samples, mean=mean, upper=_packed(self._scatter))

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
        upper=a.upper + b.upper + _packed(between),
    )


def _check_dimensions(a: NDArray[np.floating], b: NDArray[np.floating]) -> None:
    if a.size != b.size:
        shorter, longer = sorted((a.size, b.size))
        raise _UnusableFeaturesError(f"its vectors have different lengths, {shorter} and {longer}")


def _packed(matrix: FloatArray) -> FloatArray:
    """Return the upper triangle of a matrix of shape (d, d), row by row."""
    return np.concatenate([row[number:] for number, row in enumerate(matrix)])


def _unpacked(upper: FloatArray, dimensions: int) -> FloatArray:
    """Return the matrix of shape (d, d) with this upper triangle, and zeros below."""
    matrix = np.zeros((dimensions, dimensions))
    start = 0
    for number, row in enumerate(matrix):
        end = start + dimensions - number
        row[number:] = upper[start:end]
        start = end
    return matrix
