"""Whether two runs agree, row by row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from toolkit.ahead import in_order
from toolkit.errors import RequestError
from toolkit.runs import RunFolder, RunRecord

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from toolkit.storage import Storage

__all__ = ["Comparison", "Features", "compare_features", "compare_runs", "read_features"]

# What bf16 and f32 of the same network keep to; equal settings reach 1 - 1e-6.
LEAST_COSINE = 0.999
# A file of features has some 100 images; this many fill the time of a request.
_FILES_IN_FLIGHT = 8


@dataclass(frozen=True)
class Comparison:
    """How two runs differ on the images that they share.

    Attributes
    ----------
    shared, only_a, only_b
        Featurized images in both runs, and in one only. Images are matched by their keys below
        each run's images, so that buckets and prefixes may differ.
    labels_differ
        Shared images whose labels differ.
    least_cosine, mean_cosine
        Of the feature vectors of a shared image, -1 to 1; None where nothing is shared.
    components_a, components_b
        Principal components of each run.
    """

    run_a: str
    run_b: str
    shared: int
    only_a: int
    only_b: int
    labels_differ: int
    least_cosine: float | None
    mean_cosine: float | None
    components_a: int | None
    components_b: int | None

    @property
    def agree(self) -> bool:
        """Same images, same labels, and every pair of vectors at a cosine of at least 0.999."""
        return (
            self.only_a == self.only_b == self.labels_differ == 0
            and self.least_cosine is not None
            and self.least_cosine >= LEAST_COSINE
        )


Features = dict[str, tuple[str, np.ndarray]]
"""Label and vector of each image, by its key below the images of the run."""


def compare_runs(storage: Storage, a: RunRecord, b: RunRecord) -> Comparison:
    """Compare the features of two runs, held in memory (4 bytes x images x dimensions each).

    Raises
    ------
    RequestError
        The runs used networks of different dimensions, or one has no features.
    """
    if a.dimensions != b.dimensions:
        raise RequestError(
            f"{a.run_id} has {a.dimensions} dimensions ({a.model}) and {b.run_id} "
            f"{b.dimensions} ({b.model}): their vectors can't be compared.",
            remedy="Compare runs of the same model: `toolkit runs` shows it.",
        )
    found = [read_features(storage, record) for record in (a, b)]
    for record, features in zip((a, b), found, strict=True):
        if not features:
            raise RequestError(
                f"Run {record.run_id} ({record.status}) has no features.",
                remedy="Choose a run that is done: `toolkit runs`.",
            )
    return compare_features(a, found[0], b, found[1])


def compare_features(a: RunRecord, left: Features, b: RunRecord, right: Features) -> Comparison:
    """Compare features of two runs, all of them or some; all vectors have one length."""
    shared = sorted(left.keys() & right.keys())
    cosines = _cosines(
        np.array([left[key][1] for key in shared]), np.array([right[key][1] for key in shared])
    )
    return Comparison(
        run_a=a.run_id,
        run_b=b.run_id,
        shared=len(shared),
        only_a=len(left) - len(shared),
        only_b=len(right) - len(shared),
        labels_differ=sum(left[key][0] != right[key][0] for key in shared),
        least_cosine=float(cosines.min()) if shared else None,
        mean_cosine=float(cosines.mean()) if shared else None,
        components_a=a.components,
        components_b=b.components,
    )


def read_features(
    storage: Storage, record: RunRecord, *, keys: Collection[str] | None = None
) -> Features:
    """Read the features of a run.

    Parameters
    ----------
    storage
        The store that has the run.
    record
        The run.
    keys
        Of some images, below the run's images; default: all.

    Returns
    -------
    dict
        Vectors are float32 of shape (dimensions,). What is not there, or in the quarantine, is not
        in it.
    """
    wanted = None if keys is None else {f"{record.images.rstrip('/')}/{key}" for key in keys}
    folder = RunFolder(storage, record.run_id).file("features")
    files = (
        entry.location
        for entry in storage.objects(folder)
        if entry.location.key.endswith(".parquet")
    )
    found: Features = {}
    for content in in_order(storage.read, files, threads=_FILES_IN_FLIGHT, ahead=_FILES_IN_FLIGHT):
        found.update(_rows(content, record, wanted))
    return found


def _rows(
    file: bytes, record: RunRecord, wanted: set[str] | None
) -> Iterator[tuple[str, tuple[str, np.ndarray]]]:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    table = pq.read_table(pa.BufferReader(file))
    if wanted is not None:
        table = table.filter(pc.is_in(table["origin"], value_set=pa.array(sorted(wanted))))
    vectors = table["features"].combine_chunks().flatten().to_numpy()
    matrix = vectors.reshape(table.num_rows, record.dimensions)
    for origin, label, vector in zip(
        table["origin"].to_pylist(), table["label"].to_pylist(), matrix, strict=True
    ):
        yield origin.removeprefix(record.images).lstrip("/"), (label, vector)


def _cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if not len(a):
        return np.empty(0)
    a, b = a.astype(np.float64), b.astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.asarray(np.einsum("ij,ij->i", a, b) / np.where(norms > 0, norms, 1))
