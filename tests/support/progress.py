"""A progress that keeps what it is told."""

from __future__ import annotations

from toolkit.progress import Silent


class Told(Silent):
    """Keeps the titles of stages, with their totals, and what is said."""

    def __init__(self) -> None:
        self.titles: list[str] = []
        self.said: list[str] = []

    def begin(self, title: str, *, total: int | None = None) -> None:
        self.titles.append(title if total is None else f"{title}: {total}")

    def say(self, text: str) -> None:
        self.said.append(text)
