"""One JPEG of 40 megapixels among small ones: what it costs in memory, and whom it holds up."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from benchmarks.bench import Bench, Case, Step
from benchmarks.figures import Series, combined, shown
from benchmarks.images import LARGE, repeated, repeated_with_a_large_one
from benchmarks.networks import EFFICIENTNET
from benchmarks.ours import measure_run
from benchmarks.table import Table

if TYPE_CHECKING:
    from benchmarks.results import Results

__all__ = ["CASE", "PIXELS_MIB", "increase"]

_NAME = "large-image"
_WITHOUT = "small images alone"
_WITH = "with one of 40 megapixels"
PIXELS_MIB = LARGE[0] * LARGE[1] * 3 / 2**20
"""Size of the large image's pixels in RGB."""


def increase(results: Results, figure: str) -> Series:
    """Return what a figure is larger with the large image than without it."""
    sizes = results.sizes(_NAME)[:1]
    both = [
        results.series(_NAME, each, size, figure) for size in sizes for each in (_WITH, _WITHOUT)
    ]
    return combined(lambda a, b: a - b, *both) if both else {}


def _steps(bench: Bench) -> list[Step]:
    count = bench.scale.beside_large
    return [
        Step(subject=subject, size=count, measure=partial(_measure, bench, subject, count))
        for subject in (_WITHOUT, _WITH)
    ]


def _measure(bench: Bench, subject: str, count: int) -> dict[str, Any]:
    put = repeated if subject == _WITHOUT else repeated_with_a_large_one
    images = put(bench.stack.storage, count)
    figures = measure_run(bench, images.uri, EFFICIENTNET)
    return figures | {"images_per_second": figures["rows"] / figures["features_seconds"]}


def _tables(results: Results) -> list[Table]:
    rows = [
        [
            f"{size:,} {subject}" if subject == _WITHOUT else f"{size:,} small, {subject}",
            shown(results.series(_NAME, subject, size, "worker_peak_mib"), digits=0),
            shown(results.series(_NAME, subject, size, "features_seconds"), digits=2),
            shown(results.series(_NAME, subject, size, "images_per_second")),
        ]
        for size in results.sizes(_NAME)
        for subject in results.subjects(_NAME)
    ]
    return [
        Table(
            "A large image among small ones",
            ["images", "peak of a Python worker, MiB", "stage features, s", "images/s in it"],
            rows,
            f"Its pixels are {PIXELS_MIB:.0f} MiB in RGB.",
        )
    ]


CASE = Case(
    name=_NAME,
    about="one JPEG of 40 megapixels among 500 small ones: memory and rate",
    steps=_steps,
    tables=_tables,
)
