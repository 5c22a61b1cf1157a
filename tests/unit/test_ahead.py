"""What is under way ahead of a reader: bounded, in order or as completed, ended with the reader."""

from __future__ import annotations

import threading
import time

import pytest

from toolkit.ahead import Limits, as_completed, in_order
from toolkit.errors import JobError

LIMITS = Limits(threads=4, items=10, size=100)


def test_work_in_flight_is_bounded_and_ends_with_its_reader() -> None:
    begun: list[int] = []

    def function(item: int) -> int:
        begun.append(item)
        return item

    results = as_completed(function, range(1_000), size=lambda _: 1, limits=LIMITS)
    first = [next(results) for _ in range(20)]
    results.close()
    assert len(set(first)) == 20
    assert len(begun) <= 30


def test_bytes_in_flight_are_bounded_but_one_item_may_be_larger() -> None:
    flying: set[int] = set()
    most: list[int] = []

    def function(item: int) -> int:
        flying.add(item)
        most.append(len(flying))
        time.sleep(0.01)
        flying.discard(item)
        return item

    limits = Limits(threads=16, items=100, size=100)
    sizes = [*[40] * 20, 1_000, *[40] * 5]
    done = list(as_completed(function, range(26), size=lambda item: sizes[item], limits=limits))
    assert sorted(done) == list(range(26))
    assert max(most) == 2


def test_slow_item_keeps_no_other_waiting() -> None:
    slow = threading.Event()

    def function(item: int) -> int:
        if item == 0:
            slow.wait(30)
        return item

    results = as_completed(function, range(50), size=lambda _: 1, limits=LIMITS)
    others = [next(results) for _ in range(49)]
    slow.set()
    assert 0 not in others
    assert next(results) == 0


def test_failure_of_one_item_reaches_the_reader() -> None:
    def function(item: int) -> int:
        if item == 5:
            raise JobError("the store said no")
        return item

    with pytest.raises(JobError, match="said no"):
        list(as_completed(function, range(10), size=lambda _: 1, limits=LIMITS))


def test_results_in_order_wait_for_the_slow_one_and_no_more_is_begun_than_allowed() -> None:
    begun: list[int] = []

    def function(item: int) -> int:
        begun.append(item)
        time.sleep(0.05 if item % 3 == 0 else 0)
        return item

    results = in_order(function, range(100), threads=2, ahead=4)
    assert [next(results) for _ in range(10)] == list(range(10))
    assert len(begun) <= 14
    results.close()
    assert len(begun) <= 14


def test_failure_in_order_reaches_the_reader() -> None:
    def function(item: int) -> float:
        return 1 / item

    results = in_order(function, [1, 0, 2], threads=2, ahead=4)
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)
