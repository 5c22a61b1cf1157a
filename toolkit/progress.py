"""How a run tells what it is doing; the CLI draws it, a notebook or a test may ignore it."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Progress", "Silent"]


class Progress(Protocol):
    """Receives what a run has to say, stage by stage."""

    def begin(self, title: str, *, total: int | None = None) -> None:
        """Open a stage; `total` is its number of images where they can be counted."""

    def advance_to(self, done: int) -> None:
        """Say that `done` images of the open stage are done."""

    def end(self, seconds: float) -> None:
        """Close the open stage."""

    def say(self, text: str) -> None:
        """Say something that the user should know."""


class Silent:
    """Says nothing."""

    def begin(self, title: str, *, total: int | None = None) -> None:
        """Ignore it."""

    def advance_to(self, done: int) -> None:
        """Ignore it."""

    def end(self, seconds: float) -> None:
        """Ignore it."""

    def say(self, text: str) -> None:
        """Ignore it."""
