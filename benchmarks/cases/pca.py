"""PCA with all components, fitted to vectors in memory."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

from benchmarks.bench import Bench, Case, Step
from benchmarks.figures import Series, ratio, shown
from benchmarks.table import Table

if TYPE_CHECKING:
    from benchmarks.results import Results

__all__ = ["CASE", "LAPACK", "OURS", "SPARK_ML", "times_as_long"]

_NAME = "pca"
OURS = "ours, on Spark"
SPARK_ML = "Spark ML"
LAPACK = "numpy: one Gram matrix, one eigh"
_WAYS = {
    OURS: "ours",
    SPARK_ML: "spark-ml",
    "scikit-learn": "scikit-learn",
    LAPACK: "lapack",
}


def times_as_long(results: Results, subject: str, other: str) -> Series:
    """Return how many times as long one takes as another, on the smaller matrix."""
    rows = results.sizes(_NAME)[:1]
    return (
        ratio(*(results.series(_NAME, each, rows[0], "seconds") for each in (subject, other)))
        if rows
        else {}
    )


def _steps(bench: Bench) -> list[Step]:
    return [
        Step(subject=subject, size=rows, measure=partial(_measure, bench, way, rows))
        for rows in bench.scale.pca_rows
        for subject, way in _WAYS.items()
    ]


def _measure(bench: Bench, way: str, rows: int) -> dict[str, Any]:
    dimensions = bench.scale.pca_dimensions
    log = str(bench.logs / "pca-driver.log")
    run = bench.run_peer("pca.py", way, str(rows), str(dimensions), BENCHMARK_LOG=log)
    said: dict[str, Any] = json.loads(run.output)
    return {**said, "dimensions": dimensions, "peak_mib": round(run.peak_mib, 1)}


def _tables(results: Results) -> list[Table]:
    rows = []
    for size in results.sizes(_NAME):
        ours = results.series(_NAME, OURS, size, "seconds")
        for subject in results.subjects(_NAME):
            seconds = results.series(_NAME, subject, size, "seconds")
            dimensions = results.latest(_NAME, subject, "dimensions")
            rows.append(
                [
                    f"{size:,} x {dimensions:,}",
                    subject,
                    shown(seconds, digits=2),
                    shown(ratio(seconds, ours), digits=2),
                    shown(results.series(_NAME, subject, size, "peak_mib"), digits=0),
                ]
            )
    return [
        Table(
            "PCA, all components",
            ["vectors", "who", "s", "times as long as ours", "peak memory, MiB"],
            rows,
            "Seconds of the fit alone: the session stands and the vectors lie in memory, in "
            "Spark's cache where Spark is. They are in single precision, as scikit-learn computes; "
            "ours, Spark ML and numpy compute in double.",
        )
    ]


CASE = Case(
    name=_NAME,
    about="PCA with all components: Spark ML, scikit-learn, LAPACK, ours",
    steps=_steps,
    tables=_tables,
)
