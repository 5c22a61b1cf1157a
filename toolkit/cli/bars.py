"""How a run shows what it is doing: a live bar on a terminal, else plain lines."""

from __future__ import annotations

import sys
import time

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from toolkit.cli.output import say
from toolkit.progress import Progress as RunProgress

__all__ = ["make_progress"]

_PLAIN_EVERY_SECONDS = 10.0


def make_progress() -> RunProgress:
    """Return a live bar where stderr is a terminal, else plain lines."""
    return _Bars() if sys.stderr.isatty() else _Lines()


class _Rate(ProgressColumn):
    """Images per second of the open stage."""

    def render(self, task: Task) -> Text:
        if task.total is None or not task.speed:
            return Text("")
        return Text(f"{task.speed:.0f} images/s")


class _Bars:
    """Draws one bar a stage."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._bars: Progress | None = None

    def begin(self, title: str, *, total: int | None = None) -> None:
        columns: list[ProgressColumn] = [SpinnerColumn(), TextColumn("{task.description}")]
        if total is not None:
            columns += [BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn()]
        self._bars = Progress(*columns, TimeElapsedColumn(), console=self._console, transient=True)
        self._title = title
        self._task = self._bars.add_task(title, total=total)
        self._bars.start()

    def advance_to(self, done: int) -> None:
        if self._bars is not None:
            self._bars.update(self._task, completed=done)

    def end(self, seconds: float) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None
        self._console.print(Text(_closing(self._title, seconds)))

    def say(self, text: str) -> None:
        self._console.print(Text(text))


class _Lines:
    """Prints a line now and then while a stage goes on, and one when it ends."""

    def begin(self, title: str, *, total: int | None = None) -> None:
        self._title, self._total = title, total
        self._printed = time.monotonic()
        self._first: tuple[float, int] | None = None

    def advance_to(self, done: int) -> None:
        now = time.monotonic()
        # What an earlier attempt had done already says nothing of the rate.
        begun, already = self._first = self._first or (now, done)
        if now - self._printed < _PLAIN_EVERY_SECONDS or done == already:
            return
        self._printed = now
        rate = (done - already) / (now - begun)
        known = "" if self._total is None else f" of {self._total}"
        left = "" if self._total is None else f", {(self._total - done) / rate:.0f} s left"
        say(f"{self._title}: {done}{known}, {rate:.0f} images/s{left}")

    def end(self, seconds: float) -> None:
        say(_closing(self._title, seconds))

    def say(self, text: str) -> None:
        say(text)


def _closing(title: str, seconds: float) -> str:
    return f"{title}: {seconds:.1f} s"
