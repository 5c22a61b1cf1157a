"""The runs in a bucket: where the files of a run are, and its record."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import secrets
import socket
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

from toolkit.dataset import Dataset
from toolkit.errors import JobError, RequestError, ToolkitError
from toolkit.storage import Location, ObjectNotFound, Storage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = [
    "RUNS",
    "Counts",
    "Owner",
    "RunFolder",
    "RunRecord",
    "all_runs",
    "find_run",
    "new_run_id",
    "now",
    "recording_failure",
    "versions",
]

RUNS = "runs"
"""Folder of the runs in a bucket."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Images of a run; once it is done, ``listed == featurized + quarantined``."""

    listed: int = 0
    featurized: int = 0
    quarantined: int = 0


@dataclass(frozen=True, slots=True)
class Owner:
    """The process that works on a run, told from a later one with the same number."""

    host: str
    pid: int
    started: float

    @classmethod
    def this_process(cls) -> Owner:
        """Describe the running process."""
        return cls(socket.gethostname(), os.getpid(), _process_start(os.getpid()) or 0.0)

    def is_alive_here(self) -> bool:
        """Whether the process runs on this host."""
        return self.host == socket.gethostname() and self.may_be_alive()

    def may_be_alive(self) -> bool:
        """Whether the process runs, or can't be seen from here because it is on another host."""
        if self.host != socket.gethostname():
            return True
        return _process_start(self.pid) == self.started


@dataclass(frozen=True)
class RunRecord:
    """What ``run.json`` holds: everything that tells one run from another.

    Attributes
    ----------
    run_id
        Sorts by time.
    status
        ``running``, ``done`` or ``failed``.
    weights, weights_sha256, random_weights
        What was asked for, the hash of what was loaded, and whether it is random (no knowledge of
        images, for tests and benchmarks only).
    precision
        Arithmetic of the network as executed: ``f32``, ``bf16`` or ``int8``.
    input_size
        Height and width in pixels of what the network saw.
    fidelity
        Cosines of some images' features to those of the network at its own size in f32 (mean,
        least, centred) and number of these images; None at its own size in ``auto`` or f32.
    components
        Number of principal components in the result.
    explained_variance
        Share of the variance that they explain, 0 to 1.
    seconds
        Wall time per stage. Spark's session starts beside the model's stage.
    images_per_second
        Images that this attempt featurized or quarantined over the seconds of stage ``features``;
        None if all were there from an earlier attempt.
    fingerprint
        What must be equal for one run to continue another.
    """

    run_id: str
    status: str
    profile: str
    images: str
    model: str
    weights: str
    weights_sha256: str
    random_weights: bool
    engine: str
    precision: str
    fingerprint: str
    owner: Owner
    started_at: str
    finished_at: str | None = None
    error: str | None = None
    counts: Counts = field(default_factory=Counts)
    skipped: int = 0
    labels: int = 0
    dimensions: int = 0
    input_size: tuple[int, int] = (0, 0)
    fidelity: dict[str, float] | None = None
    components: int | None = None
    explained_variance: float | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    images_per_second: float | None = None
    versions: dict[str, str] = field(default_factory=dict)
    uris: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """Write the record as one JSON document."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> RunRecord:
        """Read a record; fields that this version does not know are left out.

        Raises
        ------
        JobError
            It is no record of a run.
        """
        try:
            known = _known(cls, json.loads(text))
            known["owner"] = Owner(**_known(Owner, known["owner"]))
            known["counts"] = Counts(**_known(Counts, known["counts"]))
            known["input_size"] = tuple(known.get("input_size", (0, 0)))
            return cls(**known)
        except (KeyError, TypeError, ValueError) as exc:
            raise JobError(f"This is no record of a run: {exc!r}") from exc

    def failed(self, error: str) -> RunRecord:
        """Return the record of this run as failed."""
        return replace(self, status="failed", error=error, finished_at=now())


@dataclass(frozen=True)
class RunFolder:
    """The files of one run in the bucket."""

    storage: Storage
    run_id: str

    @property
    def location(self) -> Location:
        """The run's folder."""
        return self.storage.location(RUNS, self.run_id)

    def file(self, name: str) -> Location:
        """One of ``features``, ``result``, ``quarantine``, ``pca.npz``, ``report.html``."""
        return self.location / name

    def dataset(self, name: str) -> Dataset:
        """One of ``features``, ``result``, ``quarantine``."""
        return Dataset(self.storage, self.file(name))

    def save(self, record: RunRecord) -> None:
        """Write ``run.json``."""
        self.storage.write(self.file("run.json"), record.to_json().encode())

    def load(self) -> RunRecord:
        """Read ``run.json``.

        Raises
        ------
        RequestError
            There is no such run.
        """
        try:
            return RunRecord.from_json(self.storage.read(self.file("run.json")))
        except ObjectNotFound as exc:
            raise RequestError(
                f"There is no run {self.run_id!r} in {self.storage.location(RUNS).uri}.",
                remedy="List them with `toolkit runs`.",
            ) from exc


def new_run_id() -> str:
    """Return an id that sorts by time, to the millisecond, and does not meet another's."""
    moment = datetime.now(UTC)
    return f"{moment:%Y%m%d-%H%M%S}-{moment.microsecond // 1000:03d}{secrets.token_hex(1)}"


def now() -> str:
    """Return the time as ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def versions() -> dict[str, str]:
    """Return the versions of what decides on results."""
    packages = ("fruits-toolkit", "pyspark", "openvino", "keras", "obstore", "pillow", "numpy")
    return {"python": platform.python_version()} | {
        name: importlib.metadata.version(name) for name in packages
    }


def all_runs(storage: Storage) -> Iterator[RunRecord]:
    """Yield the records of the bucket's runs, newest first; a folder without one is no run."""
    for run_id in reversed(storage.folders(storage.location(RUNS))):
        with suppress(RequestError, JobError):
            yield RunFolder(storage, run_id).load()


def find_run(storage: Storage, run_id: str | None = None) -> RunRecord:
    """Return a run by its id, or by the start of it; without one, the newest that is done.

    Raises
    ------
    RequestError
        There is none, or the start fits several.
    """
    if run_id is None:
        record = next((run for run in all_runs(storage) if run.status == "done"), None)
        if record is None:
            raise RequestError(
                f"There is no finished run in {storage.location(RUNS).uri}.",
                remedy="Make one with `toolkit run`.",
            )
        return record
    fitting = [name for name in storage.folders(storage.location(RUNS)) if name.startswith(run_id)]
    if len(fitting) > 1 and run_id not in fitting:
        raise RequestError(
            f"{run_id!r} fits several runs: {', '.join(fitting)}.", remedy="Write more of the id."
        )
    exact = run_id if run_id in fitting or not fitting else fitting[0]
    return RunFolder(storage, exact).load()


class _Record(Protocol):
    def failed(self, error: str) -> Self:
        """Return the record of what has failed, and why."""


R = TypeVar("R", bound=_Record)


@contextmanager
def recording_failure(save: Callable[[R], None], record: R) -> Iterator[None]:
    """Save a record as failed when the block raises, Ctrl-C included."""
    try:
        yield
    except BaseException as exc:
        reason = exc.message if isinstance(exc, ToolkitError) else repr(exc)
        with suppress(ToolkitError):  # the store may be what failed
            save(record.failed(reason))
        raise


def _known(cls: type, fields: dict[str, Any]) -> dict[str, Any]:
    return {name: fields[name] for name in cls.__dataclass_fields__ if name in fields}  # type: ignore[attr-defined]


def _process_start(pid: int) -> float | None:
    """Return when a process started, in clock ticks since boot; None if it does not run."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:  # noqa: PTH123
            return float(file.read().rpartition(")")[2].split()[19])  # starttime: proc(5)
    except OSError:
        return None
