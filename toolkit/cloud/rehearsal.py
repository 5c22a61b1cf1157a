"""The rehearsal: the boot script and the bundle of a promotion, on this machine, on some images.

What is rehearsed is all that an instance does from its first second: the very user-data fetches the
very bundle, sets the machine up and runs the job, with the rights of the node's role. The store is
the local stack's, and holds for the time of the rehearsal a folder for it:

    toolkit/rehearsals/<id>/owner.json     who rehearses: what nobody does any more is removed
    toolkit/rehearsals/<id>/images/<key>   the sample
    toolkit/promotions/<id>/               the promotion, as the node finds it

The run stays among those of the local bucket, and the bundle for the next time.
"""

from __future__ import annotations

import json
import time
from collections import deque
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Protocol

from toolkit.ahead import in_order
from toolkit.cloud.aws.account import Identity
from toolkit.cloud.aws.policy import Policy, node_policy
from toolkit.cloud.bundle import upload
from toolkit.cloud.clock import MACHINE_CLOCK, Clock
from toolkit.cloud.follow import NodeDiedError, follow
from toolkit.cloud.node.log import quoted
from toolkit.cloud.node.user_data import NodeBoot, user_data
from toolkit.cloud.status import PromotionFolder
from toolkit.errors import JobError
from toolkit.runs import Owner, RunRecord, new_run_id
from toolkit.storage import ObjectNotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from toolkit.cloud.bundle import Bundle
    from toolkit.cloud.job import JobDescription
    from toolkit.cloud.source import ImageSource
    from toolkit.cloud.status import Status
    from toolkit.images.listing import ImageObject
    from toolkit.progress import Progress
    from toolkit.storage import Location, Storage

__all__ = ["REHEARSALS", "SAMPLE_IMAGES", "Machine", "Rehearsal", "StandIn", "rehearse"]

SAMPLE_IMAGES = 48
"""Images of a rehearsal: some seconds of work, and enough to compare."""

REHEARSALS = "toolkit/rehearsals"
"""Folder of the rehearsals in the local bucket, one folder each."""

_OWNER = "owner.json"
_IMAGES = "images"
# Nobody's: MinIO knows no accounts.
_IDENTITY = Identity("000000000000", "arn:aws:iam::000000000000:user/rehearsal")
# The script wants a number, and turns nothing off in a rehearsal.
_DEAD_MAN_MINUTES = 60
_READS_IN_FLIGHT = 16
_ENDING_SECONDS = 10.0
_POLL_SECONDS = 0.1
_LINES_TOLD = 12
# If the job asks for more components than the sample is sure to have.
_COMPONENTS_INSTEAD = 0.95


class Machine(Protocol):
    """A machine that runs the boot script."""

    @property
    def log(self) -> Path:
        """File with all that is said on the node."""

    def exit_code(self) -> int | None:
        """Return the boot script's exit code; None while it runs."""


class StandIn(Protocol):
    """What stands in for EC2: it runs a boot script, with the node's rights, until the block ends.

    The CLI passes it: it knows the local stack, and this module does not.
    """

    def __call__(self, script: str, *, policy: Policy) -> AbstractContextManager[Machine]:
        """Start a machine with the script as its user-data."""


@dataclass(frozen=True)
class Rehearsal:
    """What a rehearsal leaves.

    Attributes
    ----------
    record
        Of its run, which is in the local bucket.
    sample
        Keys of its images, below the job's images as below the run's.
    """

    record: RunRecord
    sample: tuple[str, ...]


def rehearse(  # noqa: PLR0913 - what, on which images, where, and who is told
    bundle: Bundle,
    job: JobDescription,
    source: ImageSource,
    *,
    storage: Storage,
    stand_in: StandIn,
    progress: Progress,
    on_line: Callable[[str], None],
    images: int = SAMPLE_IMAGES,
    clock: Clock = MACHINE_CLOCK,
) -> Rehearsal:
    """Run a promotion's bundle on this machine as an instance would, on some of the images.

    Parameters
    ----------
    bundle
        The bundle.
    job
        The promotion's job: what it asks for is rehearsed, but on the sample, and here.
    source
        The promotion's images.
    storage
        The local stack's store.
    stand_in
        Runs the boot script.
    progress
        Is told of the stages.
    on_line
        Gets each new line of the node's log.
    images
        At most so many images.
    clock
        Measures how long the node takes, and makes the pauses between two looks.

    Raises
    ------
    RequestError
        An image can't be read.
    JobError
        The rehearsal failed, and so would the promotion; or a store can't be reached.
    """
    _remove_left_behind(storage)
    with _own_folder(storage) as (rehearsal_id, place):
        folder = PromotionFolder(storage, rehearsal_id)
        sample = _copied(source, images, storage=storage, to=place / _IMAGES, progress=progress)
        upload(bundle, storage)
        here = _job_here(job, storage, images=place / _IMAGES, sample=len(sample), say=progress.say)
        folder.write_job(here.to_json().encode())
        boot = NodeBoot(
            bucket=here.bucket,
            region=here.region,
            promotion_id=rehearsal_id,
            bundle=bundle.identity,
            dead_man_minutes=_DEAD_MAN_MINUTES,
        )
        policy = node_policy(
            _IDENTITY,
            region=here.region,
            bucket=here.bucket,
            promotion=rehearsal_id,
            reads=[place / _IMAGES],
            has_secret=False,
        )
        with stand_in(user_data(boot), policy=policy) as machine:
            _followed(folder, machine, progress=progress, on_line=on_line, clock=clock)
        record = RunRecord.from_json(storage.read(folder.file("result.json")))
    return Rehearsal(record, sample)


# --- its place in the bucket ---------------------------------------------------------------------


@contextmanager
def _own_folder(storage: Storage) -> Iterator[tuple[str, Location]]:
    """Give an id and a folder that no other rehearsal has, and remove what is there at the end."""
    rehearsal_id = new_run_id()
    place = storage.location(REHEARSALS, rehearsal_id)
    storage.write(place / _OWNER, json.dumps(asdict(Owner.this_process())).encode())
    try:
        yield rehearsal_id, place
    finally:
        with suppress(JobError):  # the store may be what failed; the next rehearsal removes it
            _remove(storage, rehearsal_id)


def _remove_left_behind(storage: Storage) -> None:
    """Remove the rehearsals of processes that are gone."""
    for rehearsal_id in storage.folders(storage.location(REHEARSALS)):
        if not _is_going_on(storage, rehearsal_id):
            _remove(storage, rehearsal_id)


def _is_going_on(storage: Storage, rehearsal_id: str) -> bool:
    try:
        content = storage.read(storage.location(REHEARSALS, rehearsal_id, _OWNER))
        return Owner(**json.loads(content)).may_be_alive()
    except (ObjectNotFound, TypeError, ValueError):
        return False


def _remove(storage: Storage, rehearsal_id: str) -> None:
    storage.delete_all(PromotionFolder(storage, rehearsal_id).location)
    storage.delete_all(storage.location(REHEARSALS, rehearsal_id))


# --- the job -------------------------------------------------------------------------------------


def _copied(
    source: ImageSource, count: int, *, storage: Storage, to: Location, progress: Progress
) -> tuple[str, ...]:
    """Copy some of the images to a folder of the store, each under its key."""

    def copy(image: ImageObject) -> str:
        key = source.key(image)
        storage.write(to / key, source.read(image))
        return key

    sample = source.sample(count)
    progress.begin("Images of the rehearsal", total=len(sample))
    began = time.monotonic()
    keys: list[str] = []
    copies = in_order(copy, sample, threads=_READS_IN_FLIGHT, ahead=_READS_IN_FLIGHT)
    try:
        with closing(copies):
            for key in copies:
                keys.append(key)
                progress.advance_to(len(keys))
    finally:
        progress.end(round(time.monotonic() - began, 3))
    return tuple(keys)


def _job_here(
    job: JobDescription,
    storage: Storage,
    *,
    images: Location,
    sample: int,
    say: Callable[[str], None],
) -> JobDescription:
    """Return the job as it is to be done here: on the sample, and with the result in its run."""
    components = job.components
    # So many are there for sure, even if some of the images can't be read or are the same.
    if isinstance(components, int) and components > sample // 2:
        components = _COMPONENTS_INSTEAD
        say(
            f"{sample} images may not have {job.components} components: the rehearsal takes as "
            f"many as explain {components:.0%} of the variance"
        )
    return replace(
        job,
        bucket=storage.name,
        region=storage.settings.region,
        images=images.uri,
        components=components,
        limit=None,
        output=None,
        nodes=1,
    )


# --- the node ------------------------------------------------------------------------------------


def _followed(
    folder: PromotionFolder,
    machine: Machine,
    *,
    progress: Progress,
    on_line: Callable[[str], None],
    clock: Clock,
) -> None:
    """Wait until the node is done.

    Raises
    ------
    JobError
        It has failed, or has ended without a word.
    """
    try:
        last = follow(
            folder,
            progress=progress,
            on_line=on_line,
            instance_state=lambda: _state(folder, machine),
            clock=clock,
        )
    except _EndedError as exc:
        raise _failed(f"the node's boot script ended with exit code {exc.code}", machine) from None
    except NodeDiedError as exc:
        raise _failed(exc.reason, machine) from exc
    # After its last status, the script still has the end of the log to ship.
    deadline = clock.now() + _ENDING_SECONDS
    while machine.exit_code() is None and clock.now() < deadline:
        clock.sleep(_POLL_SECONDS)
    if last.phase != "done":
        raise _failed(last.error or last.phase, machine, last)


class _EndedError(Exception):
    """The boot script has ended, and no last status is there."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def _state(folder: PromotionFolder, machine: Machine) -> str:
    code = machine.exit_code()
    if code is not None:
        # What it said at last is there when it has ended.
        status = folder.status()
        if status is None or not status.is_final:
            raise _EndedError(code)
    return "running"


def _failed(reason: str, machine: Machine, last: Status | None = None) -> JobError:
    try:
        with machine.log.open(encoding="utf-8", errors="replace") as log:
            lines = [line.rstrip("\n") for line in deque(log, maxlen=_LINES_TOLD)]
    except OSError:
        lines = []
    told = quoted(lines)
    remedy = last.remedy if last is not None and last.phase == "failed" else None
    return JobError(
        f"The rehearsal failed: {reason.rstrip('.')}."
        + (f" The last lines of its log:{told}" if told else ""),
        remedy=f"{remedy or 'On AWS it would fail as well: mend it, and rehearse again.'} "
        f"The whole log: {machine.log}",
    )
