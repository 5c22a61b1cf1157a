"""A distant store: 30 ms on every answer, as between an EC2 node and S3."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from benchmarks.bench import Bench, Case, Step
from benchmarks.cases import pipeline
from benchmarks.figures import Series, ratio, shown
from benchmarks.images import repeated
from benchmarks.networks import EFFICIENTNET, RESNET50
from benchmarks.ours import measure_run
from benchmarks.table import Table
from benchmarks.toxiproxy import built_server, slow_store
from toolkit.folders import cache_folder

if TYPE_CHECKING:
    from benchmarks.results import Results

__all__ = ["CASE", "rate_kept"]

_NAME = "latency"
_LATENCY_MS = 30
_OURS = {pipeline.OURS_RESNET50: RESNET50, pipeline.OURS_EFFICIENTNET: EFFICIENTNET}
_SUBJECTS = (*_OURS, pipeline.NOTEBOOK)


def rate_kept(results: Results, subject: str) -> Series:
    """Return the marginal rate with the delay over the one without."""
    with_delay, without = (
        pipeline.images_per_second(results, _NAME, _delayed(subject, latency))
        for latency in (_LATENCY_MS, 0)
    )
    return ratio(with_delay, without)


def _delayed(subject: str, latency_ms: int) -> str:
    return f"{subject}, {latency_ms} ms"


def _steps(bench: Bench) -> list[Step]:
    few, many = bench.scale.images
    return [
        Step(
            subject=_delayed(subject, latency),
            size=count,
            measure=partial(_measure, bench, subject, count=count, latency=latency),
        )
        for subject in _SUBJECTS
        # The notebook needs many minutes for what is told as well by fewer images.
        for count in ((few, many) if subject in _OURS else (few // 4, few))
        for latency in (0, _LATENCY_MS)
    ]


def _measure(bench: Bench, subject: str, *, count: int, latency: int) -> dict[str, Any]:
    images = repeated(bench.stack.storage, count)
    server = built_server(cache_folder(), log=bench.logs / "toxiproxy-build.log")
    store = bench.stack.profile.s3.endpoint
    with slow_store(
        server, store, latency_ms=latency, log=bench.logs / "toxiproxy.log"
    ) as endpoint:
        if subject in _OURS:
            return measure_run(bench, images.uri, _OURS[subject], endpoint=endpoint)
        return pipeline.measure_peer(bench, "notebook.py", images, count=count, endpoint=endpoint)


def _tables(results: Results) -> list[Table]:
    measured = results.subjects(_NAME)
    rows = [
        [
            subject,
            *(
                shown(pipeline.images_per_second(results, _NAME, _delayed(subject, latency)))
                for latency in (0, _LATENCY_MS)
            ),
            shown(rate_kept(results, subject), digits=2),
        ]
        for subject in _SUBJECTS
        if any(name.startswith(subject) for name in measured)
    ]
    return [
        Table(
            "A distant store",
            ["pipeline", "images/s, 0 ms", f"images/s, {_LATENCY_MS} ms", "rate kept"],
            rows,
            f"Marginal rates through a proxy that holds every answer of MinIO back for "
            f"{_LATENCY_MS} ms, and through the same proxy without a delay.",
        )
    ]


CASE = Case(
    name=_NAME,
    about="30 ms on every answer of the store: ours and the notebook",
    steps=_steps,
    tables=_tables,
)
