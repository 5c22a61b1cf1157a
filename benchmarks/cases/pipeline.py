"""Whole pipelines: images in the bucket to Parquet in the bucket, ours beside what people use."""

from __future__ import annotations

import io
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from benchmarks.bench import Bench, Case, Step
from benchmarks.figures import Series, combined, marginal, ratio, shown
from benchmarks.images import repeated
from benchmarks.machine import computes_bf16
from benchmarks.measure import CommandFailed
from benchmarks.networks import EFFICIENTNET, RESNET50, resnet50_weights
from benchmarks.ours import measure_run
from benchmarks.table import Table

if TYPE_CHECKING:
    from benchmarks.results import Results
    from toolkit.storage import Location, Storage

__all__ = [
    "CASE",
    "DAFT",
    "NAME",
    "NOTEBOOK",
    "OURS_BF16",
    "OURS_EFFICIENTNET",
    "OURS_RESNET50",
    "ROW_BY_ROW",
    "fixed_seconds",
    "images_per_second",
    "measure_peer",
]

NAME = "pipeline"
OURS_RESNET50 = "ours, ResNet50"
OURS_BF16 = "ours, ResNet50 in bf16"
OURS_EFFICIENTNET = "ours, EfficientNetLite0"
NOTEBOOK = "notebook, ResNet50"
ROW_BY_ROW = "row by row, ResNet50"
DAFT = "Daft + Keras, ResNet50"

_OURS = {
    OURS_RESNET50: RESNET50,
    # Where the processor has it: what the precision costs is for the user's own weights to tell.
    **({OURS_BF16: replace(RESNET50, precision="bf16")} if computes_bf16() else {}),
    OURS_EFFICIENTNET: EFFICIENTNET,
}
_PEERS = {NOTEBOOK: "notebook.py", DAFT: "daft_keras.py", ROW_BY_ROW: "row_by_row.py"}
_DIMENSIONS = 2048


def images_per_second(results: Results, case: str, subject: str, *, of: str = "seconds") -> Series:
    """Return the marginal rate of a subject, of the whole process or of another figure."""
    seconds = marginal(results.by_size(case, subject, of))
    return combined(lambda value: 1 / value, seconds)


def fixed_seconds(results: Results, subject: str) -> Series:
    """Return what a run of ours costs beside Spark's start and beside its images.

    Wall time of the process, less the seconds until Spark's session stood, less the images over the
    marginal rate of the same round.
    """
    few = results.sizes(NAME, subject)[0] if results.sizes(NAME, subject) else 0
    return combined(
        lambda wall, spark, rate: wall - spark - few / rate,
        results.series(NAME, subject, few, "seconds"),
        results.series(NAME, subject, few, "spark_seconds"),
        images_per_second(results, NAME, subject),
    )


def measure_peer(
    bench: Bench, script: str, images: Location, *, count: int, endpoint: str | None = None
) -> dict[str, Any]:
    """Run a peer, see that it has done all of the work, and return its figures."""
    storage = bench.stack.storage
    output = storage.location("benchmarks", script.partition(".")[0])
    bench.stack.delete(output)
    scheme = "s3" if script == _PEERS[DAFT] else "s3a"
    run = bench.run_peer(
        script,
        *(f"{scheme}://{each.bucket}/{each.key}" for each in (images, output)),
        endpoint=endpoint,
        RESNET50_WEIGHTS=str(resnet50_weights()),
    )
    try:
        rows = _rows(storage, output)
    finally:
        bench.stack.delete(output)
    if rows != count:
        raise CommandFailed(f"{script} wrote {rows} rows of {count}.")
    return run.figures() | {"rows": rows}


def _rows(storage: Storage, output: Location) -> int:
    """Count the feature vectors of a peer's Parquet files."""
    rows = 0
    for entry in storage.objects(output):
        if entry.location.key.endswith(".parquet"):
            features = pq.read_table(io.BytesIO(storage.read(entry.location)))["features"]
            lengths = {len(value) for value in features.to_pylist()}
            if lengths - {_DIMENSIONS}:
                raise CommandFailed(f"{entry.location.uri} has vectors of lengths {lengths}.")
            rows += len(features)
    return rows


def _steps(bench: Bench) -> list[Step]:
    few, many = bench.scale.images
    # A few thousand images are some seconds of the fast network: its rate needs more of them.
    more = {OURS_EFFICIENTNET: [bench.scale.fast_images[1]]}
    return [
        Step(subject=subject, size=count, measure=partial(_measure, bench, subject, count))
        for subject in (*_OURS, *_PEERS)
        for count in (few, many, *more.get(subject, []))
    ]


def _measure(bench: Bench, subject: str, count: int) -> dict[str, Any]:
    images = repeated(bench.stack.storage, count)
    if subject in _PEERS:
        return measure_peer(bench, _PEERS[subject], images, count=count)
    return measure_run(bench, images.uri, _OURS[subject])


def _tables(results: Results) -> list[Table]:
    sizes = results.sizes(NAME)[:2]
    rows = []
    for subject in results.subjects(NAME):
        most = results.sizes(NAME, subject)[-1]
        cpu = results.series(NAME, subject, most, "cpu_seconds")
        peak = results.series(NAME, subject, most, "peak_mib")
        rows.append(
            [
                subject,
                *(shown(results.series(NAME, subject, size, "seconds")) for size in sizes),
                shown(images_per_second(results, NAME, subject)),
                shown(peak, digits=0),
                shown(combined(lambda value, most=most: value / most, cpu), digits=4),
            ]
        )
    return [
        Table(
            "Pipelines",
            [
                "pipeline",
                *(f"{size:,} images, s" for size in sizes),
                "images/s, marginal",
                "peak memory, MiB",
                "CPU s an image",
            ],
            rows,
            "Seconds from the start of the process to its end, with the Parquet files written; the "
            "local stack is up. Ours fits a PCA, projects, and writes a report as well.",
        ),
        _against_ours(results, sizes),
        _fixed(results),
    ]


def _against_ours(results: Results, sizes: list[int]) -> Table:
    """Compare the peers with our ResNet50, the same network with the same weights."""
    rows = []
    for subject in (subject for subject in results.subjects(NAME) if subject in _PEERS):
        totals = [
            ratio(
                results.series(NAME, subject, size, "seconds"),
                results.series(NAME, OURS_RESNET50, size, "seconds"),
            )
            for size in sizes
        ]
        rates = ratio(
            images_per_second(results, NAME, OURS_RESNET50),
            images_per_second(results, NAME, subject),
        )
        rows.append([subject, *(shown(each, digits=2) for each in (*totals, rates))])
    return Table(
        "How many times as fast ours is, ResNet50",
        ["against", *(f"{size:,} images, cold total" for size in sizes), "marginal"],
        rows,
    )


def _fixed(results: Results) -> Table:
    rows = [
        [
            subject,
            shown(results.series(NAME, subject, size, "spark_seconds")),
            shown(fixed_seconds(results, subject)),
        ]
        for subject in _OURS
        for size in results.sizes(NAME, subject)[:1]
    ]
    return Table(
        "Fixed cost of a run of ours, warm stack",
        ["pipeline", "Spark session, s", "beyond it, s"],
        rows,
        "Beyond it: wall time of the process, less the session's seconds, less the images over the "
        "marginal rate.",
    )


CASE = Case(
    name=NAME,
    about="whole pipelines: ours, the usual notebook, row by row, Daft + Keras",
    steps=_steps,
    tables=_tables,
)
