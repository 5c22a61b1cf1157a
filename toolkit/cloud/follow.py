"""Follows a promotion's node from here, by what it writes to the bucket."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from toolkit.cloud.clock import MACHINE_CLOCK, Clock
from toolkit.cloud.node.log import quoted
from toolkit.errors import JobError, ToolkitError
from toolkit.runs import RunFolder
from toolkit.storage import ObjectNotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from toolkit.cloud.status import PromotionFolder, Status
    from toolkit.progress import Progress

__all__ = ["FollowLimits", "NodeDiedError", "follow", "release_run"]

# EC2's names for an instance that does not come back:
# https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-instance-lifecycle.html
_GONE = frozenset({"shutting-down", "terminated", "stopping", "stopped"})
# Of a node that has worked for hours, only the end of the log is of interest.
_CHUNKS_SHOWN = 4
_LINES_TOLD = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowLimits:
    """How long each kind of silence may last, in seconds.

    Parameters
    ----------
    silent
        A node whose status has not changed for so long is reported. It writes one every 5 seconds,
        while it boots every 10, and a request to S3 may take some. It is dead, unless EC2 says that
        its instance runs.
    lost
        A node that has been silent for so long is dead, even if its instance runs: no request to S3
        takes so long, with all retries.
    boot
        An instance that has said nothing so long after its launch will not: EC2 takes a minute to
        boot Ubuntu, and the boot script some seconds to its first status.
    last_words
        What a node may still say while its instance shuts down.
    store
        How long this machine may be without network, or the store without an answer.
    poll
        Between two looks at the bucket.
    instance
        Between two looks at the instance.
    """

    silent: float = 45.0
    lost: float = 300.0
    boot: float = 300.0
    last_words: float = 15.0
    store: float = 120.0
    poll: float = 2.0
    instance: float = 10.0


_USUAL = FollowLimits()


class NodeDiedError(JobError):
    """The node is dead: it says nothing any more, or its instance is gone.

    Attributes
    ----------
    reason
        How that is known.
    """

    def __init__(self, message: str, *, remedy: str, reason: str) -> None:
        super().__init__(message, remedy=remedy)
        self.reason = reason


def follow(  # noqa: PLR0913 - what is told to whom, and how patiently
    folder: PromotionFolder,
    *,
    progress: Progress,
    on_line: Callable[[str], None],
    instance_state: Callable[[], str | None] = lambda: None,
    limits: FollowLimits = _USUAL,
    clock: Clock = MACHINE_CLOCK,
) -> Status:
    """Wait until a promotion's node has ended, and tell meanwhile what it does.

    Only reads: whoever is interrupted (Ctrl-C) leaves everything as it is and may call this again.

    Clocks are not compared: a node lives as long as its status changes while we look, by our
    monotonic clock, which neither a wrong time here nor one there can upset.

    Parameters
    ----------
    folder
        The promotion.
    progress
        Is told of the stages, as if the run were here.
    on_line
        Gets each new line of the log.
    instance_state
        Returns EC2's name for the state of the node's instance; None if it is not known.
    limits
        After which silence the node counts as dead.
    clock
        Measures the time and makes the pauses between two looks.

    Returns
    -------
    Status
        The last one: ``done``, ``failed``, ``stopped`` or ``interrupted``.

    Raises
    ------
    NodeDiedError
        With the last lines of its log.
    JobError
        The bucket can't be read any more; the node goes on.
    """
    stages = _Stages(progress)
    log = _LogReader(folder, on_line)
    node = _Liveness(instance_state, limits, clock)
    unreadable_since: float | None = None
    while True:
        try:
            status = folder.status()
            log.read()
        except JobError as exc:
            if unreadable_since is None:
                unreadable_since = clock.now()
            if clock.now() - unreadable_since > limits.store:
                raise _lost(folder, exc) from exc
        else:
            unreadable_since = None
            if status is not None:
                stages.show(status)
                if status.is_final:
                    stages.close()
                    log.finish()
                    return status
            if reason := node.why_dead(status):
                stages.close()
                log.finish()
                raise _dead(folder, reason, log.last_lines)
            if node.is_told_of:
                said = quoted(log.last_lines)
                progress.say(f"The node says nothing, but its instance runs. It said last:{said}")
        clock.sleep(limits.poll)


def release_run(folder: PromotionFolder) -> str | None:
    """Let another node continue the run of one that has ended, and return the run's id.

    A node that dies leaves its run as one that goes on, and nobody takes over a run that another
    machine may be working on. Call this only when the instance is gone.

    Parameters
    ----------
    folder
        The promotion of the node that has ended.

    Returns
    -------
    str or None
        None if the node has begun none.
    """
    status = folder.status()
    if status is None or status.run_id is None:
        return None
    run = RunFolder(folder.storage, status.run_id)
    record = run.load()
    if record.status == "running":
        run.save(record.failed(status.error or f"Node {status.node} is dead"))
    return status.run_id


class _Stages:
    """Tells a progress what has changed in a node's stages since the last look."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._begun = self._ended = 0
        self._done = 0
        self._notice: str | None = None

    def show(self, status: Status) -> None:
        for index, stage in enumerate(status.stages):
            if index == self._begun:
                self._progress.begin(stage.title, total=stage.total)
                self._begun += 1
                self._done = 0
            if index < self._ended:
                continue
            if stage.done != self._done:
                self._progress.advance_to(stage.done)
                self._done = stage.done
            if stage.seconds is not None:
                self._progress.end(stage.seconds)
                self._ended += 1
        if status.notice != self._notice:
            self._notice = status.notice
            self._progress.say(f"{status.notice}.")

    def close(self) -> None:
        """Close the stage that the node has left open."""
        if self._ended < self._begun:
            self._progress.end(0.0)
            self._ended = self._begun


class _LogReader:
    """Reads the chunks of all nodes' logs in their order, each once."""

    def __init__(self, folder: PromotionFolder, on_line: Callable[[str], None]) -> None:
        self._folder = folder
        self._on_line = on_line
        self._next: dict[str, int] = {}
        self._unfinished: dict[str, bytes] = {}
        self._cut: set[str] = set()  # nodes whose next line lacks its beginning
        self.last_lines: deque[str] = deque(maxlen=_LINES_TOLD)

    def read(self) -> None:
        """Pass on the lines that are new and whole."""
        storage = self._folder.storage
        for node in storage.folders(self._folder.logs):
            if node not in self._next:
                self._meet(node)
            for content in self._chunks(node):
                *lines, rest = (self._unfinished[node] + content).split(b"\n")
                self._unfinished[node] = rest
                if node in self._cut and lines:
                    self._cut.discard(node)
                    del lines[0]
                for line in lines:
                    self._tell(line)

    def finish(self) -> None:
        """Pass on what is left, and the last line of each node even if it is cut."""
        self.read()
        for node, rest in self._unfinished.items():
            if rest:
                self._tell(rest)
            self._unfinished[node] = b""

    def _chunks(self, node: str) -> Iterator[bytes]:
        while True:
            try:
                content = self._folder.storage.read(self._folder.chunk(node, self._next[node]))
            except ObjectNotFound:
                return
            self._next[node] += 1
            yield content

    def _meet(self, node: str) -> None:
        chunks = self._folder.storage.files(self._folder.logs / node)
        shown = [int(each.location.key.rpartition("/")[2]) for each in chunks[-_CHUNKS_SHOWN:]]
        self._next[node] = shown[0]
        self._unfinished[node] = b""
        if len(shown) < len(chunks):
            self._cut.add(node)

    def _tell(self, line: bytes) -> None:
        text = line.decode(errors="replace")
        self.last_lines.append(text)
        self._on_line(text)


class _Liveness:
    """Judges whether a node can still be heard of."""

    def __init__(
        self, instance_state: Callable[[], str | None], limits: FollowLimits, clock: Clock
    ) -> None:
        self._instance_state = instance_state
        self._limits = limits
        self._clock = clock
        self._last: Status | None = None
        self._changed = clock.now()
        self._asked: float | None = None
        self._gone: tuple[str, float] | None = None
        self._runs = False
        self._is_silent = False
        self.is_told_of = False  # the silence began a moment ago

    def why_dead(self, status: Status | None) -> str | None:
        """Say why there is nothing more to wait for, given what could just be read; else None."""
        now, limits = self._clock.now(), self._limits
        if status != self._last:
            self._last, self._changed = status, now
        if self._asked is None or now - self._asked >= limits.instance:
            self._asked = now
            with suppress(ToolkitError):  # of the node's state we learn from the bucket as well
                state = self._instance_state()
                self._runs = state == "running"
                if state in _GONE and self._gone is None:
                    self._gone = state, now
        if self._gone is not None and now - self._gone[1] >= limits.last_words:
            return f"its instance is {self._gone[0]}"
        silence = now - self._changed
        if status is None:
            is_dead = silence >= limits.boot
            return f"it has not said a word within {silence:.0f} s" if is_dead else None
        was_silent, self._is_silent = self._is_silent, silence >= limits.silent
        self.is_told_of = self._is_silent and self._runs and not was_silent
        if silence >= (limits.lost if self._runs else limits.silent):
            return f"it has been silent for {silence:.0f} s"
        return None


def _dead(folder: PromotionFolder, reason: str, lines: deque[str]) -> NodeDiedError:
    told = quoted(lines)
    return NodeDiedError(
        f"The node of promotion {folder.promotion_id} is dead: {reason}."
        + (f" The last lines of its log:{told}" if told else " There is nothing in its log."),
        remedy="What is done stays in the bucket. Another node goes on from there: "
        f"`toolkit promote --resume {folder.promotion_id}`.",
        reason=reason,
    )


def _lost(folder: PromotionFolder, cause: JobError) -> JobError:
    return JobError(
        f"Promotion {folder.promotion_id} can't be followed any more: {cause.message}",
        remedy="The node goes on without us. Come back with "
        f"`toolkit promote --follow {folder.promotion_id}`.",
    )
