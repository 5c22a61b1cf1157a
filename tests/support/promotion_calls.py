"""Calls of `toolkit promote` as processes, in a session of their own, as a terminal has them."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.support.aws_proxy import in_front_of
from toolkit.cloud.journal import load_record
from toolkit.cloud.status import BOOT_STAGE, PromotionFolder, Stage, Status
from toolkit.runs import RunFolder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.aws_proxy import Asked, InFront
    from tests.support.promotion import Cloud, Node, Script

_WAIT = 200.0  # two cores, and others on them
_ALL = "all"


class Call:
    """A call of the toolkit, whose words are read as they come."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._lines: list[str] = []
        self._out = ""
        self._is_over = False
        self._heard = threading.Condition()
        self._threads = [
            threading.Thread(target=self._listen, name="stderr"),
            threading.Thread(target=self._take, name="stdout"),
        ]
        for thread in self._threads:
            thread.start()

    def _listen(self) -> None:
        with self.process.stderr as words:
            for line in words:
                with self._heard:
                    self._lines.append(line)
                    self._heard.notify_all()
        with self._heard:
            self._is_over = True
            self._heard.notify_all()

    def _take(self) -> None:
        with self.process.stdout as words:
            self._out = words.read()

    @property
    def said(self) -> str:
        """What it has said so far on stderr."""
        with self._heard:
            return "".join(self._lines)

    def heard(self, words: str) -> bool:
        return any(words in line for line in self._lines)

    def until(self, words: str) -> None:
        """Wait for a line with these words."""
        with self._heard:
            self._heard.wait_for(lambda: self.heard(words) or self._is_over, _WAIT)
            assert self.heard(words), f"{words!r} was not said, but:\n{''.join(self._lines)}"

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all its processes, as a terminal does."""
        os.killpg(self.process.pid, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self.end()

    def end(self) -> tuple[int, str]:
        """Wait for its end, and return its exit code and what it has printed on stdout."""
        try:
            code = self.process.wait(_WAIT)
        except subprocess.TimeoutExpired:
            pytest.fail(f"It has not ended, and said:\n{self.said}")
        for thread in self._threads:
            thread.join()
        return code, self._out


class Held:
    """A reply of AWS that is held back: what was asked for is done, and the asker can't know."""

    def __init__(self, front: InFront, action: str) -> None:
        self._action = action
        self._is_held, self._is_free = threading.Event(), threading.Event()
        front.then = self._hold

    def _hold(self, asked: Asked, _: bytes) -> None:
        if asked.name == self._action and asked.parameters.get("DryRun") != "true":
            self._is_held.set()
            self._is_free.wait(_WAIT)

    def wait(self) -> None:
        assert self._is_held.wait(_WAIT), f"nobody has asked for {self._action}"

    def free(self) -> None:
        self._is_free.set()


class Worker:
    """A node that works, and ends only when a test lets it, or somebody stops it."""

    def __init__(self, works: Script) -> None:
        self._works = works
        self._may_end: set[str] = set()

    def __call__(self, folder: PromotionFolder, node: Node) -> Iterator[None]:
        stages = (Stage(BOOT_STAGE, seconds=1.0), Stage("Features", total=24, done=12))
        while not self._may_end & {_ALL, folder.promotion_id}:
            folder.report(Status("running", node.name, stages=stages))
            if folder.is_asked_to_stop():
                folder.report(Status("stopped", node.name, stages=stages))
                return
            yield
        self._works(folder, node)

    def may_end(self, promotion_id: str = _ALL) -> None:
        self._may_end.add(promotion_id)


@contextmanager
def working(cloud: Cloud, works: Script) -> Iterator[Worker]:
    """Have EC2 boot nodes that end when they may, at last at the end of the block."""
    worker = Worker(works)
    with ExitStack() as exits:
        exits.enter_context(cloud.machines(cloud.saying(worker)))
        exits.callback(worker.may_end)
        yield worker


def is_done(call: Call, cloud: Cloud) -> bool:
    """Require that a call has ended well, with a run, and that nothing is left."""
    code, printed = call.end()
    assert code == 0, call.said
    assert ": done" in printed
    assert cloud.left() == []
    for promotion_id in cloud.ids:
        folder = cloud.promotion(promotion_id)
        record = load_record(folder)
        assert (record.outcome, record.ended_at is not None) == ("done", True)
        assert RunFolder(cloud.storage, folder.status().run_id).load().status == "done"
    return True


# --- fixtures: a folder's conftest.py imports them -----------------------------------------------


@pytest.fixture
def begin(cloud: Cloud) -> Callable[..., Call]:
    """Return what calls the toolkit."""
    return lambda *arguments, **env: Call(cloud.begin(*arguments, **env))


@pytest.fixture
def promote(begin: Callable[..., Call], mixed_folder: Path) -> Callable[..., Call]:
    """Return what promotes the images, always with the same arguments."""
    return lambda **env: begin("promote", str(mixed_folder), "--no-rehearse", "--yes", **env)


@pytest.fixture
def front(cloud: Cloud) -> Iterator[InFront]:
    """Give a server in front of moto, for processes that are led to it."""
    with in_front_of(cloud.moto.url) as server:
        yield server
