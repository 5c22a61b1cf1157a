"""The trainings in a bucket: where the files of a training are, and its record."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from toolkit.dataset import Dataset
from toolkit.errors import RequestError

if TYPE_CHECKING:
    from toolkit.storage import Location, Storage

__all__ = [
    "TRAININGS",
    "Candidate",
    "LabelScore",
    "TrainingFolder",
    "TrainingRecord",
    "find_training",
]

TRAININGS = "trained"
"""Folder of the trainings in a bucket."""


@dataclass(frozen=True)
class Candidate:
    """A combination of the grid, and its mean accuracy over the folds, 0 to 1."""

    params: dict[str, float]
    accuracy: float


@dataclass(frozen=True)
class LabelScore:
    """How well a label is told from the others, on held-out images.

    Parameters
    ----------
    label
        The label.
    images
        How many held-out images have it.
    precision
        Share of the images taken for it that have it; None where none was.
    recall
        Share of the images that have it which were taken for it; None where none has it.
    """

    label: str
    images: int
    precision: float | None
    recall: float | None


@dataclass(frozen=True)
class TrainingRecord:
    """What ``train.json`` holds.

    Attributes
    ----------
    training_id
        Sorts by time.
    held_out
        What was held out, in words.
    counts
        Images: ``training``, ``held_out``, ``quarantined``.
    candidates
        The grid, the best first.
    accuracy
        Share of the held-out images that were told right, 0 to 1.
    scores
        Of each label, in the order of `labels`.
    confusion
        How many held-out images of a label (row) were taken for which (column).
    """

    training_id: str
    profile: str
    images: str
    model: str
    weights: str
    weights_sha256: str
    random_weights: bool
    precision: str
    held_out: str
    folds: int
    counts: dict[str, int]
    candidates: list[Candidate]
    labels: list[str]
    accuracy: float
    scores: list[LabelScore]
    confusion: list[list[int]]
    seconds: dict[str, float]
    started_at: str
    finished_at: str
    versions: dict[str, str]
    uris: dict[str, str]

    def to_json(self) -> str:
        """Write the record as one JSON document."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"


@dataclass(frozen=True)
class TrainingFolder:
    """The files of one training in the bucket."""

    storage: Storage
    training_id: str

    def file(self, name: str) -> Location:
        """One of ``features``, ``quarantine``, ``model``, ``weights``, ``train.json``."""
        return self.storage.location(TRAININGS, self.training_id) / name

    def dataset(self, name: str) -> Dataset:
        """One of ``features``, ``quarantine``."""
        return Dataset(self.storage, self.file(name))


def find_training(storage: Storage, training_id: str) -> TrainingFolder:
    """Return a finished training by its id, or by the start of it.

    Raises
    ------
    RequestError
        There is none, or the start fits several.
    """
    there = [
        name
        for name in storage.folders(storage.location(TRAININGS))
        if storage.exists(TrainingFolder(storage, name).file("train.json"))
    ]
    fitting = (
        [training_id]
        if training_id in there
        else [name for name in there if name.startswith(training_id)]
    )
    if len(fitting) != 1:
        raise RequestError(
            f"{training_id!r} fits {len(fitting) or 'no'} trainings: there are "
            f"{', '.join(there) or 'none'}.",
            remedy="Make one with `toolkit train`, or write the id as it shows it.",
        )
    return TrainingFolder(storage, fitting[0])
