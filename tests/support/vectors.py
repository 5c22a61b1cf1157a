"""Feature vectors, and partitions of them without Spark."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence


def vectors_of(n: int, d: int, *, offset: float = 0.0, spread: float = 1.0) -> np.ndarray:
    """Draw correlated float32 vectors, whose variances fall from direction to direction."""
    rng = np.random.default_rng(n * 1000 + d)
    axes, _ = np.linalg.qr(rng.standard_normal((d, d)))
    scales = spread * 0.8 ** np.arange(d)
    return (offset + rng.standard_normal((n, d)) * scales @ axes).astype(np.float32)


class LocalPartitions:
    """The part of Spark's RDD that `toolkit.pca` uses, in this process.

    tests/spark/test_pca.py holds that Spark gives the same numbers, to the last bit.
    """

    def __init__(self, partitions: Sequence[Sequence[Any]]) -> None:
        self._partitions = partitions

    def mapPartitionsWithIndex(  # noqa: N802 - Spark's name
        self, function: Callable[[int, Iterable[Any]], Iterable[Any]]
    ) -> LocalPartitions:
        mapped = [list(function(i, iter(part))) for i, part in enumerate(self._partitions)]
        return LocalPartitions(mapped)

    def map(self, function: Callable[[Any], Any]) -> LocalPartitions:
        return LocalPartitions([[function(each) for each in part] for part in self._partitions])

    def groupByKey(self, count: int) -> LocalPartitions:  # noqa: N802 - Spark's name
        # What a shuffle promises no order of comes here in the reverse one.
        groups: list[dict[Any, list[Any]]] = [defaultdict(list) for _ in range(count)]
        for key, value in reversed(self.collect()):
            groups[hash(key) % count][key].append(value)
        return LocalPartitions([list(group.items()) for group in groups])

    def getNumPartitions(self) -> int:  # noqa: N802 - Spark's name
        return len(self._partitions)

    def collect(self) -> list[Any]:
        return [each for part in self._partitions for each in part]
