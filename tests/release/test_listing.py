"""A listing of five million images: a minute, so not in the gate, which has 100,000."""

from __future__ import annotations

from tests.support.listing_memory import listed_by_the_benchmark


def test_five_million_images_take_no_more_memory_than_fifty_thousand() -> None:
    small, large = listed_by_the_benchmark(50_000, 5_000_000)
    assert large["images"] == 5_000_000
    assert large["memory_mib"] - small["memory_mib"] < 8
