"""Reading alone: small files from the store, with nothing behind it."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

from benchmarks.bench import Bench, Case, Step
from benchmarks.figures import Series, ratio, shown
from benchmarks.images import repeated
from benchmarks.measure import CommandFailed
from benchmarks.table import Table

if TYPE_CHECKING:
    from benchmarks.results import Results

__all__ = ["CASE", "against_image_source"]

_NAME = "reading"
_IMAGE_SOURCE = "Spark's image source (decodes)"
_OURS = "ours, pixels (decodes, resizes)"
_WAYS = {
    "ours-bytes": "ours, bytes",
    "boto3": "boto3, 8 threads",
    "spark-binaryfile": "Spark's binaryFile source",
    "ours-pixels": _OURS,
    "spark-image": _IMAGE_SOURCE,
}


def against_image_source(results: Results) -> Series:
    """Return how many times as fast ours reads and decodes as Spark's image source."""
    ours, theirs = (_rate(results, subject) for subject in (_OURS, _IMAGE_SOURCE))
    return ratio(ours, theirs)


def _rate(results: Results, subject: str) -> Series:
    sizes = results.sizes(_NAME, subject)
    return results.series(_NAME, subject, sizes[-1], "images_per_second") if sizes else {}


def _steps(bench: Bench) -> list[Step]:
    count = bench.scale.images[1]
    return [
        Step(subject=subject, size=count, measure=partial(_measure, bench, way, count))
        for way, subject in _WAYS.items()
    ]


def _measure(bench: Bench, way: str, count: int) -> dict[str, Any]:
    storage = bench.stack.storage
    few, images = repeated(storage, 96), repeated(storage, count)
    run = bench.run_peer("reading.py", way, few.uri, images.uri)
    said: dict[str, Any] = json.loads(run.output)
    if said["images"] != count:
        raise CommandFailed(f"{way} read {said['images']} images of {count}.")
    return said


def _tables(results: Results) -> list[Table]:
    ours = _rate(results, _OURS)
    rows = [
        [
            subject,
            shown(_rate(results, subject), digits=0),
            shown(ratio(ours, _rate(results, subject))),
        ]
        for subject in results.subjects(_NAME)
    ]
    return [
        Table(
            "Reading small files",
            ["reader", "images/s", "ours with decoding is times as fast"],
            rows,
            "Listing and reading in a process (Spark: a session) that has read 96 images before. "
            "Spark reads on all cores, boto3 and ours in one Python process.",
        )
    ]


CASE = Case(
    name=_NAME,
    about="reading small files: Spark's sources, boto3, ours",
    steps=_steps,
    tables=_tables,
)
