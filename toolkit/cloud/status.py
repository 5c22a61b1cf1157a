"""What a promotion's node says of itself, and where it says it: its folder in the bucket."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from toolkit.cloud.bundle import PROMOTIONS
from toolkit.cloud.documents import from_document, to_document
from toolkit.cloud.job import JOB
from toolkit.errors import JobError, RequestError
from toolkit.runs import now
from toolkit.storage import ObjectNotFound

if TYPE_CHECKING:
    from toolkit.storage import Location, Storage

__all__ = [
    "BOOT_STAGE",
    "FINAL_PHASES",
    "Phase",
    "PromotionFolder",
    "Stage",
    "Status",
    "find_promotion",
]

BOOT_STAGE = "Set-up of the node"
"""Title of the first stage, which the boot script opens."""

Phase = Literal["booting", "running", "done", "failed", "stopped", "interrupted"]

FINAL_PHASES: frozenset[Phase] = frozenset({"done", "failed", "stopped", "interrupted"})
"""Those after which a node says nothing more."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage of the work, as a `toolkit.progress.Progress` is told of it.

    Parameters
    ----------
    title
        Its title.
    total
        Number of its images where they can be counted.
    done
        How many of them are done.
    seconds
        Wall time that it took; None while it goes on.
    """

    title: str
    total: int | None = None
    done: int = 0
    seconds: float | None = None


@dataclass(frozen=True)
class Status:
    """What ``status.json`` holds.

    Attributes
    ----------
    phase
        ``booting`` until Python runs on the node, ``running``, and in the end ``done``, ``failed``,
        ``stopped`` (somebody asked for it) or ``interrupted`` (the machine is taken away).
    node
        Name of the node: its EC2 instance id.
    began_at, heartbeat
        When the node began to boot and when it wrote this, by its own clock: ISO 8601 in UTC.
    stages
        All stages so far, in their order. The last one may be open.
    run_id
        The run in the bucket; None until it has begun.
    error, remedy
        Why it ended early and what helps, for people.
    notice
        What EC2 has said of taking the node away, for people.
    """

    phase: Phase
    node: str
    began_at: str = field(default_factory=now)
    heartbeat: str = field(default_factory=now)
    stages: tuple[Stage, ...] = ()
    run_id: str | None = None
    error: str | None = None
    remedy: str | None = None
    notice: str | None = None

    @property
    def is_final(self) -> bool:
        """Whether the node says nothing more after this."""
        return self.phase in FINAL_PHASES

    def to_json(self) -> str:
        """Write the status as one JSON document."""
        return to_document(self)

    @classmethod
    def from_json(cls, text: str | bytes) -> Status:
        """Read a status; fields that this version does not know are left out.

        Raises
        ------
        JobError
            It is no status of a node.
        """
        return from_document(cls, text, what="status of a node", error=JobError)


@dataclass(frozen=True)
class PromotionFolder:
    """The files of one promotion in the bucket.

    Parameters
    ----------
    storage
        The store; its own bucket holds the promotion.
    promotion_id
        The promotion.
    """

    storage: Storage
    promotion_id: str

    @property
    def location(self) -> Location:
        """The promotion's folder."""
        return self.storage.location(PROMOTIONS, self.promotion_id)

    def file(self, name: str) -> Location:
        """One of ``job.json``, ``status.json``, ``stop``, ``result.json``, ``master.json``."""
        return self.location / name

    @property
    def logs(self) -> Location:
        """The folder that has a folder of log chunks for each node."""
        return self.location / "log"

    def chunk(self, node: str, number: int) -> Location:
        """Return where a part of a node's log is: `number` counts from 0, without a gap."""
        return self.logs / node / f"{number:08d}"

    def status(self) -> Status | None:
        """Return what the node said last; None before it has said anything.

        Raises
        ------
        JobError
            The store can't be reached, or what is there is no status.
        """
        try:
            return Status.from_json(self.storage.read(self.file("status.json")))
        except ObjectNotFound:
            return None

    def report(self, status: Status) -> None:
        """Write a status with the time of now; who reads sees all of it or the one before."""
        stamped = replace(status, heartbeat=now())
        self.storage.write(self.file("status.json"), stamped.to_json().encode())

    def write_job(self, job: bytes) -> None:
        """Write what the node is to do."""
        self.storage.write(self.file(JOB), job)

    def ask_to_stop(self) -> None:
        """Ask the node to end its work."""
        self.storage.write(self.file("stop"), f"{now()}\n".encode())

    def begin_anew(self) -> None:
        """Forget what a node has said that is gone: another one goes on with the job."""
        for name in ("status.json", "master.json", "stop", "result.json"):
            self.storage.delete_all(self.file(name))

    def is_asked_to_stop(self) -> bool:
        """Whether somebody has asked the node to end its work."""
        return self.storage.exists(self.file("stop"))


def find_promotion(storage: Storage, promotion_id: str | None = None) -> PromotionFolder:
    """Return a promotion by its id, or by the start of it; without one, the newest.

    Parameters
    ----------
    storage
        The store; its own bucket holds the promotions.
    promotion_id
        The id, or the start of one alone.

    Returns
    -------
    PromotionFolder
        It has a job: a folder without one is no promotion.

    Raises
    ------
    RequestError
        There is none, or the start fits several.
    JobError
        The store can't be reached.
    """
    where = storage.location(PROMOTIONS)
    fitting = [name for name in storage.folders(where) if name.startswith(promotion_id or "")]
    named = [promotion_id] if promotion_id in fitting else fitting
    found = (PromotionFolder(storage, name) for name in reversed(named))
    promotions = (folder for folder in found if storage.exists(folder.file(JOB)))
    newest = next(promotions, None)
    if newest is None:
        what = "no promotion" if promotion_id is None else f"no promotion {promotion_id!r}"
        raise RequestError(
            f"There is {what} in {where.uri}.",
            remedy="Begin one with `toolkit promote`; or name the profile of its bucket with -p.",
        )
    if promotion_id is not None and (others := [each.promotion_id for each in promotions]):
        several = ", ".join(sorted([newest.promotion_id, *others]))
        raise RequestError(
            f"{promotion_id!r} fits several promotions: {several}.",
            remedy="Write more of the id.",
        )
    return newest
