"""The limit: what OpenVINO alone computes on this machine, with images in memory."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

from benchmarks.bench import Bench, Case, Step
from benchmarks.figures import Series, shown
from benchmarks.images import repeated
from benchmarks.networks import EFFICIENTNET, RESNET50, Network, converted
from benchmarks.settings import offered_settings
from benchmarks.table import Table

if TYPE_CHECKING:
    from benchmarks.results import Results

__all__ = ["CASE", "best_rate"]

_NAME = "engine"


def best_rate(results: Results, setting: str) -> Series:
    """Return the engine's best rate in a setting, by its name."""
    return results.series(_NAME, setting, 0, "images_per_second")


def _steps(bench: Bench) -> list[Step]:
    # The two that pipelines are judged by come last: right before the pipelines.
    settings = offered_settings(RESNET50, EFFICIENTNET)
    return [
        Step(subject=subject, size=0, measure=partial(_measure, bench, network))
        for subject, network in reversed(settings.items())
    ]


def _measure(bench: Bench, network: Network) -> dict[str, Any]:
    ready = converted(network, repeated(bench.stack.storage, bench.scale.images[0]).uri)
    run = bench.run_peer(
        "raw_engine.py",
        ready.file,
        # What int8 leaves over is computed in f32.
        *("--precision", "bf16" if ready.precision == "bf16" else "f32"),
        *("--seconds", str(bench.scale.engine_seconds)),
    )
    said: dict[str, Any] = json.loads(run.output)
    return said


def _tables(results: Results) -> list[Table]:
    rows = [
        [
            subject,
            shown(best_rate(results, subject)),
            str(results.latest(_NAME, subject, "best")),
        ]
        for subject in reversed(results.subjects(_NAME))
    ]
    return [
        Table(
            "The engine alone",
            ["network, pixels, precision", "images/s", "best of the newest round"],
            rows,
            "OpenVINO on tensors in memory, all cores, in batches of 1 to 32, with one stream "
            "and with one a core; the best four are measured twice again, their means count.",
        )
    ]


CASE = Case(
    name=_NAME,
    about="OpenVINO alone on tensors in memory: the limit",
    steps=_steps,
    tables=_tables,
)
