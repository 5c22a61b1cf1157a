"""What listings take, in processes of their own."""

from __future__ import annotations

from tests.support.listing_memory import listed_by_the_benchmark


def test_memory_does_not_grow_with_the_number_of_images() -> None:
    small, large = listed_by_the_benchmark(10_000, 100_000)
    assert (small["images"], large["images"]) == (10_000, 100_000)
    # Held in memory, 90,000 images more took 33 MiB.
    assert large["memory_mib"] - small["memory_mib"] < 8
