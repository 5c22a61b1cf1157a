"""The clock by which the cloud part waits: the machine's own, or another one in a test."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["MACHINE_CLOCK", "Clock"]


@dataclass(frozen=True, slots=True)
class Clock:
    """A clock that only goes forward, and the way to wait by it.

    Parameters
    ----------
    now
        Return the time in seconds since some moment.
    sleep
        Wait for so many seconds.
    """

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


MACHINE_CLOCK = Clock()
