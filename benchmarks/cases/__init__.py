"""The cases of the benchmark, in the order of their tables."""

from __future__ import annotations

from benchmarks.cases import (
    engine,
    large_image,
    latency,
    pca,
    pipeline,
    quality,
    reading,
    sparkdl,
    worker_memory,
)

__all__ = ["CASES"]

CASES = {
    module.CASE.name: module.CASE
    for module in (
        engine,
        pipeline,
        sparkdl,
        latency,
        reading,
        pca,
        worker_memory,
        large_image,
        quality,
    )
}
"""Every case by its name."""
