"""The trainings in a bucket: where the files of a training are, and its record."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING

from toolkit.dataset import Dataset
from toolkit.errors import RequestError
from toolkit.runs import now
from toolkit.storage import ObjectNotFound

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
    status
        ``running``, ``done`` or ``failed``; what comes after ``started_at`` is of one that is done.
    precision
        What was asked for; once it is done, the arithmetic as executed.
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
    status: str
    profile: str
    images: str
    model: str
    weights: str
    precision: str
    held_out: str
    folds: int
    started_at: str
    finished_at: str | None = None
    error: str | None = None
    weights_sha256: str = ""
    random_weights: bool = False
    counts: dict[str, int] = field(default_factory=dict)
    candidates: list[Candidate] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    accuracy: float | None = None
    scores: list[LabelScore] = field(default_factory=list)
    confusion: list[list[int]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    uris: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """Write the record as one JSON document."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"

    def failed(self, error: str) -> TrainingRecord:
        """Return the record of this training as failed."""
        return replace(self, status="failed", error=error, finished_at=now())


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

    def save(self, record: TrainingRecord) -> None:
        """Write ``train.json``."""
        self.storage.write(self.file("train.json"), record.to_json().encode())

    def is_done(self) -> bool:
        """Tell whether the training has ended well."""
        try:
            record = json.loads(self.storage.read(self.file("train.json")))
            return bool(record["status"] == "done")
        except (ObjectNotFound, KeyError, TypeError, ValueError):
            return False


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
        if TrainingFolder(storage, name).is_done()
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
