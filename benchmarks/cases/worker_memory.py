"""Memory of driver and Python workers over a long run, beside that over a short one."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from benchmarks.bench import Bench, Case, Step
from benchmarks.figures import Series, ratio, shown
from benchmarks.images import repeated
from benchmarks.networks import EFFICIENTNET
from benchmarks.ours import figures_of, toolkit_run
from benchmarks.table import Table

if TYPE_CHECKING:
    from benchmarks.results import Results

__all__ = ["CASE", "growth"]

_NAME = "worker-memory"
_SUBJECT = "ours, EfficientNetLite0"
_PARTS = 10


def growth(results: Results) -> Series:
    """Return the peak memory of a worker on ten times as many images, over that on the fewest."""
    peaks = results.by_size(_NAME, _SUBJECT, "worker_peak_mib")
    few = min(peaks, default=0)
    # Not the fewest themselves: a run that is missing must not look like one that did not grow.
    more = [size for size in peaks if few < size <= 10 * few]
    return ratio(peaks[max(more)], peaks[few]) if more else {}


def _steps(bench: Bench) -> list[Step]:
    return [
        Step(subject=_SUBJECT, size=count, measure=partial(_measure, bench, count))
        for count in bench.scale.memory_images
    ]


def _measure(bench: Bench, count: int) -> dict[str, Any]:
    images = repeated(bench.stack.storage, count)
    with toolkit_run(bench, images.uri, EFFICIENTNET) as (run, record):
        return figures_of(run, record) | {"worker_parts_mib": run.worker_parts(_PARTS)}


def _tables(results: Results) -> list[Table]:
    rows = []
    for size in results.sizes(_NAME):
        parts = results.latest(_NAME, _SUBJECT, "worker_parts_mib", size=size)
        rows.append(
            [
                f"{size:,}",
                shown(results.series(_NAME, _SUBJECT, size, "seconds"), digits=0),
                shown(results.series(_NAME, _SUBJECT, size, "driver_peak_mib"), digits=0),
                shown(results.series(_NAME, _SUBJECT, size, "worker_peak_mib"), digits=0),
                ", ".join(f"{part:.0f}" for part in parts),
            ]
        )
    return [
        Table(
            "Memory of the driver and of a Python worker, MiB",
            [
                "images",
                "whole run, s",
                "driver's Python, peak",
                "worker, peak",
                f"worker, median in {_PARTS} equal parts of the newest round's time",
            ],
            rows,
            "Resident memory of the largest worker; the peak is the kernel's high-water mark. "
            "EfficientNetLite0; PCA and result are part of the time.",
        )
    ]


CASE = Case(
    name=_NAME,
    about="memory of the Python workers over a short and a long run",
    steps=_steps,
    tables=_tables,
)
