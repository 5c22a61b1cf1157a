"""Rows that a stage can't compute: they become null, are counted, and the worker's log says why."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pyspark.ml.param import Params

if TYPE_CHECKING:
    from collections import Counter

    from pyspark import Accumulator
    from pyspark.sql import SparkSession

__all__ = ["BadRows", "CountsBadRows", "report"]

_log = logging.getLogger(__name__)

_REASONS_LOGGED = 3


@dataclass
class BadRows:
    """Counts the rows of a stage that became null.

    Every action that computes a row counts it, and a task that Spark repeats counts again.
    """

    _accumulator: Accumulator[int] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    @property
    def count(self) -> int:
        """How many so far."""
        return 0 if self._accumulator is None else int(self._accumulator.value)

    def counter(self, spark: SparkSession) -> Accumulator[int]:
        """Return what executors add to."""
        with self._lock:
            if self._accumulator is None:
                self._accumulator = spark.sparkContext.accumulator(0)
            return self._accumulator

    def __deepcopy__(self, memo: dict[int, Any]) -> BadRows:
        return self  # a copy of a stage counts for the stage

    def __reduce__(self) -> tuple[type[BadRows], tuple[()]]:
        return BadRows, ()  # what it counts by belongs to this process


class CountsBadRows(Params):
    """A stage that counts the rows which it makes null."""

    def __init__(self) -> None:
        super().__init__()
        self._bad = BadRows()

    @property
    def badRows(self) -> int:
        """How many rows this stage could not compute, and made null, in all actions so far."""
        return self._bad.count


def report(reasons: Counter[str], *, rows: int, bad: Accumulator[int]) -> None:
    """Count the bad rows of a task, and log why they are.

    Parameters
    ----------
    reasons
        How many rows became null for which reason.
    rows
        Number of rows of the task.
    bad
        The stage's counter.
    """
    if not reasons:
        return
    bad.add(reasons.total())
    shown = "; ".join(f"{count} x {why}" for why, count in reasons.most_common(_REASONS_LOGGED))
    _log.warning("%d of %d rows became null: %s", reasons.total(), rows, shown)
