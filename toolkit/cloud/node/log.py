"""A node's log, on its way from a file there to the bucket, in chunks that are only ever added.

The boot script (user_data.sh) begins and ends this work, Python does it in between; what one of the
two has done, the other knows from files beside the log:

    <log>.shipped     three numbers: how many bytes of the log are in the bucket; where the chunk
                      ends that is being shipped (the same if none is); the number of the next one
    <log>.lock        locked while somebody ships, or writes ``status.json``
    <log>.taken-over  Python reports from now on, and the boot script only if Python fails to
    <log>.final       the last status is written: the boot script has nothing to add

Where a chunk ends is written down before it is shipped, so that whoever finds it unfinished ships
the very same bytes again: what a reader has seen of a chunk is all of it.
"""

from __future__ import annotations

import fcntl
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from toolkit.errors import ToolkitError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from toolkit.cloud.status import PromotionFolder

__all__ = ["CHUNK_BYTES", "NodeLog", "quoted"]

CHUNK_BYTES = 262_144
"""The most that one chunk holds: what a node keeps of its log in memory."""

_EVERY_SECONDS = 2.0


def quoted(lines: Iterable[str]) -> str:
    """Return lines of a log as they stand in a message, each below what was said before."""
    return "".join(f"\n  | {line}" for line in lines)


@dataclass(frozen=True)
class NodeLog:
    """The log of a node, and how far it is shipped.

    Parameters
    ----------
    file
        Where everything on this node is said: what it prints, its errors, and Spark's messages.
    folder
        The promotion, whose folder takes the chunks.
    node
        Name of the node.
    """

    file: Path
    folder: PromotionFolder
    node: str

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep the boot script from shipping and reporting while the block does."""
        with self._beside("lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def take_over(self) -> None:
        """Make the boot script leave the status to this process."""
        with self.locked():
            self._beside("taken-over").touch()

    def close(self) -> None:
        """Say that the last status is written; call it with the lock held."""
        self._beside("final").touch()

    def ship(self) -> None:
        """Put all that was said since the last time into the bucket.

        Raises
        ------
        JobError
            The store can't be reached or refuses; the next call begins where this one stopped.
        """
        while True:
            with self.locked():
                if not self._ship_chunk():
                    return

    @contextmanager
    def shipping(self) -> Iterator[None]:
        """Ship every other second while the block runs, in a thread."""
        ending = threading.Event()

        def work() -> None:
            while not ending.wait(_EVERY_SECONDS):
                self._try_to_ship()

        thread = threading.Thread(target=work, name="log", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ending.set()
            thread.join()

    def _try_to_ship(self) -> None:
        try:
            self.ship()
        except (ToolkitError, OSError):
            return  # to say so would make the log longer each time

    def _ship_chunk(self) -> bool:
        start, end, number = self._shipped()
        if start == end:
            end = min(self.file.stat().st_size, start + CHUNK_BYTES)
            if start == end:
                return False
            self._remember(start, end, number)
        with self.file.open("rb") as log:
            log.seek(start)
            content = log.read(end - start)
        self.folder.storage.write(self.folder.chunk(self.node, number), content)
        self._remember(end, end, number + 1)
        return True

    def _shipped(self) -> tuple[int, int, int]:
        try:
            start, end, number = map(int, self._beside("shipped").read_text().split())
        except FileNotFoundError:
            return 0, 0, 0
        return start, end, number

    def _remember(self, start: int, end: int, number: int) -> None:
        new = self._beside("shipped.new")
        new.write_text(f"{start} {end} {number}\n")
        new.replace(self._beside("shipped"))

    def _beside(self, name: str) -> Path:
        return self.file.with_name(f"{self.file.name}.{name}")
