"""Calls a function for the next items, in threads, while their reader is busy with the first."""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import TYPE_CHECKING, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable
    from concurrent.futures import Future

__all__ = ["Limits", "as_completed", "in_order"]

T = TypeVar("T")
R = TypeVar("R")


class Limits(NamedTuple):
    """How much is under way at a time: threads, items begun and not taken, and size of them."""

    threads: int
    items: int
    size: int


def in_order(
    function: Callable[[T], R], items: Iterable[T], *, threads: int, ahead: int
) -> Generator[R, None, None]:
    """Yield ``function(item)`` in the order of the items.

    Parameters
    ----------
    function
        Called in threads; an exception that it raises reaches the reader.
    items
        Taken in the reader's thread.
    threads
        How many calls at a time.
    ahead
        How many results are under way or wait for the reader, at most.
    """
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[R]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) == ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def as_completed(
    function: Callable[[T], R],
    items: Iterable[T],
    *,
    size: Callable[[T], int],
    limits: Limits,
) -> Generator[R, None, None]:
    """Yield ``function(item)`` as each is done: a slow one keeps no other waiting.

    The next are begun when half of the items that the limits allow are left.

    Parameters
    ----------
    function
        Called in threads; the first exception that it raises reaches the reader.
    items
        Taken in the reader's thread.
    size
        How large an item is.
    limits
        No more is begun and not yet taken; but one item may be larger.
    """
    results: SimpleQueue[tuple[int, R | BaseException]] = SimpleQueue()
    in_flight = in_flight_bytes = 0

    def call(item: T, item_bytes: int) -> None:
        try:
            results.put((item_bytes, function(item)))
        except BaseException as exc:  # noqa: BLE001 - raised by the reader
            results.put((item_bytes, exc))

    def take() -> R:
        nonlocal in_flight, in_flight_bytes
        item_bytes, result = results.get()
        if isinstance(result, BaseException):
            raise result
        in_flight -= 1
        in_flight_bytes -= item_bytes
        return result

    pool = ThreadPoolExecutor(limits.threads)
    try:
        for item in items:
            if in_flight >= limits.items:
                while in_flight > limits.items // 2:
                    yield take()
            item_bytes = size(item)
            while in_flight and in_flight_bytes + item_bytes > limits.size:
                yield take()
            in_flight += 1
            in_flight_bytes += item_bytes
            pool.submit(call, item, item_bytes)
        while in_flight:
            yield take()
    finally:
        pool.shutdown(cancel_futures=True)
