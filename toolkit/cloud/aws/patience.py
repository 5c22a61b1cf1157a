"""Waits until AWS agrees with itself: what one service made, another may not see for seconds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from toolkit.cloud.aws.account import AwsError
from toolkit.cloud.clock import MACHINE_CLOCK, Clock

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Patience", "repeat"]

T = TypeVar("T")

# Seconds between two questions: short at first, since most waits are, then as AWS's waiters do.
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 4.0


@dataclass
class Patience:
    """How long to go on asking.

    Parameters
    ----------
    seconds
        From now.
    clock
        Measures the time and makes the pauses.
    """

    seconds: float
    clock: Clock = MACHINE_CLOCK
    _deadline: float = field(init=False)
    _pause: float = field(default=_FIRST_PAUSE, init=False)

    def __post_init__(self) -> None:
        self._deadline = self.clock.now() + self.seconds

    @property
    def is_over(self) -> bool:
        """Whether the time is up."""
        return self.clock.now() >= self._deadline

    def pause(self) -> None:
        """Wait before the next question, longer each time, not beyond the end."""
        self.clock.sleep(max(0.0, min(self._pause, self._deadline - self.clock.now())))
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)


def repeat(
    call: Callable[[], T],
    *,
    again: Callable[[AwsError], bool],
    seconds: float,
    clock: Clock = MACHINE_CLOCK,
) -> T:
    """Call until it succeeds.

    Parameters
    ----------
    call
        What to call.
    again
        Whether an error is one that time mends.
    seconds
        How long to try.
    clock
        Measures the time and makes the pauses.

    Raises
    ------
    AwsError
        One that time does not mend, or the last one.
    """
    patience = Patience(seconds, clock)
    while True:
        try:
            return call()
        except AwsError as exc:
            if patience.is_over or not again(exc):
                raise
        patience.pause()
