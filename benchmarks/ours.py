"""The toolkit as its users run it: `toolkit run` in a process of its own."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from benchmarks.networks import converted
from toolkit.runs import RunFolder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.bench import Bench
    from benchmarks.measure import Measured
    from benchmarks.networks import Network

__all__ = ["figures_of", "measure_run", "toolkit_run"]


@contextmanager
def toolkit_run(
    bench: Bench, images: str, network: Network, *, endpoint: str | None = None
) -> Iterator[tuple[Measured, dict[str, Any]]]:
    """Run the pipeline and give what it cost and its record; its folder goes with the block.

    Parameters
    ----------
    bench
        Where.
    images
        Their URI.
    network
        With its weights and settings. It is converted first: that happens once a machine.
    endpoint
        URL of the object store; default: the stack's own.
    """
    converted(network, images)
    run = bench.run(
        f"toolkit-{network.model}",
        ["-m", "toolkit", "run", images, "--fresh", "--json", *network.options],
        environment=bench.stack.our_environment(endpoint=endpoint),
    )
    record = json.loads(run.output)
    try:
        yield run, record
    finally:
        bench.stack.delete(RunFolder(bench.stack.storage, record["run_id"]).location)


def measure_run(
    bench: Bench, images: str, network: Network, *, endpoint: str | None = None
) -> dict[str, Any]:
    """Return the figures of one run."""
    with toolkit_run(bench, images, network, endpoint=endpoint) as (run, record):
        return figures_of(run, record)


def figures_of(run: Measured, record: dict[str, Any]) -> dict[str, Any]:
    """Return what every pipeline has, and what only our record says."""
    seconds = record["seconds"]
    return run.figures() | {
        "spark_seconds": seconds["spark"],
        "features_seconds": seconds["features"],
        "stages": seconds,
        "precision": record["precision"],
        "rows": record["counts"]["featurized"],
    }
