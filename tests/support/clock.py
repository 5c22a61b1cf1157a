"""A clock for code that waits: its waits are over at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from toolkit.cloud.clock import Clock

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass
class FastClock:
    """A clock that jumps to the end of each wait.

    Attributes
    ----------
    time
        Seconds since the test began, by this clock.
    at_least
        The shortest wait: a longer one saves looks.
    meanwhile
        Called during each wait: what goes on elsewhere.
    """

    time: float = 0.0
    at_least: float = 0.0
    meanwhile: Callable[[], object] = lambda: None

    @property
    def clock(self) -> Clock:
        """The clock as product code takes it."""
        return Clock(lambda: self.time, self._sleep)

    def _sleep(self, seconds: float) -> None:
        self.time += max(seconds, self.at_least)
        self.meanwhile()
