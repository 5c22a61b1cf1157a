"""SparkDL's transformer: images in the bucket to vectors in Parquet, beside `toolkit run`."""

from __future__ import annotations

import io
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from benchmarks.bench import Bench, Case, Step
from benchmarks.cases import pipeline
from benchmarks.figures import Series, ratio, shown
from benchmarks.images import repeated
from benchmarks.measure import CommandFailed
from benchmarks.networks import EFFICIENTNET, RESNET50, converted
from benchmarks.table import Table

if TYPE_CHECKING:
    from benchmarks.networks import Network
    from benchmarks.results import Results

__all__ = ["CASE", "FILES_EFFICIENTNET", "FILES_RESNET50", "STRUCTS_RESNET50", "against"]

_NAME = "sparkdl"
FILES_RESNET50 = "DeepImageFeaturizer on files, ResNet50"
STRUCTS_RESNET50 = "DeepImageFeaturizer on structs, ResNet50"
FILES_EFFICIENTNET = "DeepImageFeaturizer on files, EfficientNetLite0"
STRUCTS_EFFICIENTNET = "DeepImageFeaturizer on structs, EfficientNetLite0"

_JOBS: dict[str, tuple[str, Network]] = {
    FILES_RESNET50: ("files", RESNET50),
    STRUCTS_RESNET50: ("structs", RESNET50),
    FILES_EFFICIENTNET: ("files", EFFICIENTNET),
    STRUCTS_EFFICIENTNET: ("structs", EFFICIENTNET),
}
_PIPELINES = {RESNET50: pipeline.OURS_RESNET50, EFFICIENTNET: pipeline.OURS_EFFICIENTNET}


def against(results: Results, subject: str, other: str) -> Series:
    """Return the marginal rate of a subject over that of a pipeline, round by round."""
    return ratio(
        pipeline.images_per_second(results, _NAME, subject),
        pipeline.images_per_second(results, pipeline.NAME, other),
    )


def _steps(bench: Bench) -> list[Step]:
    return [
        Step(subject=subject, size=count, measure=partial(_measure, bench, subject, count))
        for subject, (_, network) in _JOBS.items()
        # As for the pipelines: a few thousand images are some seconds of the fast network.
        for count in (
            (bench.scale.images[0], bench.scale.fast_images[1])
            if network is EFFICIENTNET
            else bench.scale.images
        )
    ]


def _measure(bench: Bench, subject: str, count: int) -> dict[str, Any]:
    column, network = _JOBS[subject]
    storage = bench.stack.storage
    images = repeated(storage, count)
    converted(network, images.uri)
    output = storage.location("benchmarks", "sparkdl")
    bench.stack.delete(output)
    arguments = [column, network.model, network.weights, images.uri, output.uri]
    run = bench.run(subject, ["-m", "benchmarks.sparkdl_job", *arguments])
    try:
        rows = sum(
            pq.read_metadata(io.BytesIO(storage.read(entry.location))).num_rows
            for entry in storage.objects(output)
            if entry.location.key.endswith(".parquet")
        )
    finally:
        bench.stack.delete(output)
    if rows != count:
        raise CommandFailed(f"{subject} wrote {rows} rows of {count}.")
    return run.figures() | {"rows": rows}


def _tables(results: Results) -> list[Table]:
    rows = []
    for subject in results.subjects(_NAME):
        _, network = _JOBS[subject]
        sizes = results.sizes(_NAME, subject)
        row_by_row = against(results, subject, pipeline.ROW_BY_ROW)
        rows.append(
            [
                subject,
                shown(results.series(_NAME, subject, sizes[0], "seconds")),
                shown(pipeline.images_per_second(results, _NAME, subject)),
                shown(against(results, subject, _PIPELINES[network]), digits=2),
                shown(row_by_row if network is RESNET50 else {}, digits=1),
                shown(results.series(_NAME, subject, sizes[-1], "peak_mib"), digits=0),
            ]
        )
    return [
        Table(
            "SparkDL's transformer",
            [
                "column, network",
                "fewest images, s",
                "images/s, marginal",
                "of `toolkit run`",
                "times row by row",
                "peak memory, MiB",
            ],
            rows,
            "Images in the bucket to vectors in Parquet there, each in a process of its own. Row "
            "by row: ResNet50 in f32, in the manner of the original.",
        )
    ]


CASE = Case(
    name=_NAME,
    about="SparkDL's DeepImageFeaturizer on files and on structs, beside the pipelines",
    steps=_steps,
    tables=_tables,
)
