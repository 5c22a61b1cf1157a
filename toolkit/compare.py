"""Whether two runs agree, row by row."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from toolkit.errors import RequestError
from toolkit.runs import RunFolder, RunRecord

if TYPE_CHECKING:
    import pyarrow as pa

    from toolkit.storage import Storage

__all__ = ["Comparison", "compare_runs"]

# What bf16 and f32 of the same network keep to; equal settings reach 1 - 1e-6.
LEAST_COSINE = 0.999


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
    left, right = _features(storage, a), _features(storage, b)
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


def _features(storage: Storage, record: RunRecord) -> dict[str, tuple[str, np.ndarray]]:
    """Return label and vector by key below the run's images."""
    import pyarrow.parquet as pq

    rows: dict[str, tuple[str, np.ndarray]] = {}
    folder = RunFolder(storage, record.run_id).file("features")
    for entry in storage.objects(folder):
        if entry.location.key.endswith(".parquet"):
            table: pa.Table = pq.read_table(io.BytesIO(storage.read(entry.location)))
            keys = [origin.removeprefix(record.images) for origin in table["origin"].to_pylist()]
            vectors = table["features"].combine_chunks().flatten().to_numpy()
            matrix = vectors.reshape(len(keys), record.dimensions)
            rows.update(
                zip(keys, zip(table["label"].to_pylist(), matrix, strict=True), strict=True)
            )
    if not rows:
        raise RequestError(
            f"Run {record.run_id} ({record.status}) has no features.",
            remedy="Choose a run that is done: `toolkit runs`.",
        )
    return rows


def _cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if not len(a):
        return np.empty(0)
    a, b = a.astype(np.float64), b.astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.asarray(np.einsum("ij,ij->i", a, b) / np.where(norms > 0, norms, 1))
