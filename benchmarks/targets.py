"""The targets of the project: which hold on this machine, as ratios inside a round."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

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
from benchmarks.figures import Series, ratio, shown
from benchmarks.networks import EFFICIENTNET, RESNET50
from benchmarks.settings import setting_name
from benchmarks.table import Table

if TYPE_CHECKING:
    from benchmarks.networks import Network
    from benchmarks.results import Results

__all__ = ["Target", "target_table", "targets"]


@dataclass(frozen=True, kw_only=True)
class Target:
    """A bound, and what was measured.

    Parameters
    ----------
    what
        What is bounded.
    at_least, at_most
        The bound; one of the two.
    unit
        Written behind bound and measurement.
    measured
        Round -> value; empty where it was not measured.
    digits
        Decimals that are shown.
    """

    what: str
    measured: Series
    at_least: float | None = None
    at_most: float | None = None
    unit: str = ""
    digits: int = 2

    @property
    def bound(self) -> str:
        """The bound in words."""
        if self.at_least is not None:
            return f"at least {self.at_least:,g}{self.unit}"
        return f"at most {self.at_most:,g}{self.unit}"

    @property
    def verdict(self) -> str:
        """Whether the median keeps the bound, and in how many rounds the figure does."""
        if not self.measured:
            return "not measured"
        holds = "holds" if self._keeps(median(self.measured.values())) else "DOES NOT HOLD"
        kept = sum(self._keeps(value) for value in self.measured.values())
        return f"{holds} ({kept} of {len(self.measured)} rounds)"

    def _keeps(self, value: float) -> bool:
        if self.at_least is not None:
            return value >= self.at_least
        return self.at_most is not None and value <= self.at_most


def targets(results: Results) -> list[Target]:
    """Return every target with what was measured for it."""
    return [
        *_pipeline_targets(results),
        *_sparkdl_targets(results),
        *_latency_targets(results),
        Target(
            what="reading and decoding small files, against Spark's image source",
            measured=reading.against_image_source(results),
            at_least=10,
            unit="x",
            digits=1,
        ),
        Target(
            what="PCA, all components, the smaller matrix, against Spark ML",
            measured=pca.times_as_long(results, pca.SPARK_ML, pca.OURS),
            at_least=8,
            unit="x",
            digits=1,
        ),
        Target(
            what="PCA, the same, time against one LAPACK eigh + Gram",
            measured=pca.times_as_long(results, pca.OURS, pca.LAPACK),
            at_most=1.3,
            unit="x",
        ),
        *_fixed_cost_targets(results),
        Target(
            what="peak memory of a worker, ten times the images against the fewest",
            measured=worker_memory.growth(results),
            at_most=1.1,
            unit="x",
        ),
        *_large_image_targets(results),
        _fastest_setting_target(results),
    ]


def target_table(results: Results) -> Table:
    """Make the table of the targets."""
    rows = [
        [
            each.what,
            each.bound,
            shown(each.measured, digits=each.digits) + (each.unit if each.measured else ""),
            each.verdict,
        ]
        for each in targets(results)
    ]
    return Table(
        "Targets",
        ["what", "target", "measured: median (min to max)", "verdict"],
        rows,
        "Ratios are taken inside a round. The verdict is that of the median.",
    )


def _pipeline_targets(results: Results) -> list[Target]:
    in_bf16 = pipeline.OURS_BF16 in results.subjects(pipeline.NAME)
    return [
        *_resnet50_targets(results, pipeline.OURS_RESNET50, "ResNet50"),
        *(_resnet50_targets(results, pipeline.OURS_BF16, "ResNet50 in bf16") if in_bf16 else []),
        Target(
            what="EfficientNetLite0, marginal rate, against the engine alone",
            measured=_of_the_engine(results, pipeline.OURS_EFFICIENTNET, EFFICIENTNET),
            at_least=0.9,
            unit="x",
        ),
    ]


def _resnet50_targets(results: Results, subject: str, name: str) -> list[Target]:
    """Compare one of our runs of ResNet50 with the engine and with the peers, which compute f32."""
    few = results.sizes(pipeline.NAME)[0] if results.sizes(pipeline.NAME) else 0
    ours = results.series(pipeline.NAME, subject, few, "seconds")
    features = results.sessions[-1]["cpu_features"] if results.sessions else []
    rate = pipeline.images_per_second(results, pipeline.NAME, subject)
    notebook_rate = pipeline.images_per_second(results, pipeline.NAME, pipeline.NOTEBOOK)
    return [
        Target(
            what=f"{name}, marginal rate, against the engine alone",
            measured=_of_the_engine(results, subject, RESNET50),
            at_least=0.95,
            unit="x",
        ),
        Target(
            what=f"{name}, marginal rate, against the usual notebook",
            measured=ratio(rate, notebook_rate),
            at_least=5 if "amx_bf16" in features else 3,
            unit="x",
        ),
        *(
            Target(
                what=f"{name}, cold total at {few:,} images, against {peer}",
                measured=ratio(results.series(pipeline.NAME, rival, few, "seconds"), ours),
                at_least=bound,
                unit="x",
            )
            for rival, peer, bound in (
                (pipeline.NOTEBOOK, "the usual notebook", 3),
                (pipeline.DAFT, "Daft + Keras", 1.5),
            )
        ),
    ]


def _of_the_engine(results: Results, subject: str, network: Network) -> Series:
    """Divide the marginal rate of a pipeline by the engine's best in the same precision."""
    precision = str(results.latest(pipeline.NAME, subject, "precision"))
    limit = engine.best_rate(results, setting_name(network, 224, precision))
    return ratio(pipeline.images_per_second(results, pipeline.NAME, subject), limit)


def _sparkdl_targets(results: Results) -> list[Target]:
    return [
        *(
            Target(
                what=f"{subject}: marginal rate, against `toolkit run`",
                measured=sparkdl.against(results, subject, ours),
                at_least=0.9,
                unit="x",
            )
            for subject, ours in (
                (sparkdl.FILES_RESNET50, pipeline.OURS_RESNET50),
                (sparkdl.FILES_EFFICIENTNET, pipeline.OURS_EFFICIENTNET),
            )
        ),
        Target(
            what=f"{sparkdl.STRUCTS_RESNET50}: marginal rate, against row by row",
            measured=sparkdl.against(results, sparkdl.STRUCTS_RESNET50, pipeline.ROW_BY_ROW),
            at_least=5,
            unit="x",
            digits=1,
        ),
    ]


def _latency_targets(results: Results) -> list[Target]:
    return [
        Target(
            what=f"{subject}: marginal rate with 30 ms on every answer, against that without",
            measured=latency.rate_kept(results, subject),
            at_least=0.95,
            unit="x",
        )
        for subject in (pipeline.OURS_RESNET50, pipeline.OURS_EFFICIENTNET)
    ]


def _fixed_cost_targets(results: Results) -> list[Target]:
    return [
        Target(
            what=f"{subject}: fixed cost beyond the Spark session's start, warm stack",
            measured=pipeline.fixed_seconds(results, subject),
            at_most=8,
            unit=" s",
            digits=1,
        )
        for subject in (pipeline.OURS_RESNET50, pipeline.OURS_EFFICIENTNET)
    ]


def _large_image_targets(results: Results) -> list[Target]:
    return [
        Target(
            what="a JPEG of 40 megapixels among small ones: more peak memory of a worker",
            measured=large_image.increase(results, "worker_peak_mib"),
            at_most=round(large_image.PIXELS_MIB, 1),
            unit=" MiB",
            digits=1,
        ),
        Target(
            what="the same: more time for all images (our reading of: no stall of others)",
            measured=large_image.increase(results, "features_seconds"),
            at_most=1,
            unit=" s",
        ),
    ]


def _fastest_setting_target(results: Results) -> Target:
    """Take the fastest of the precisions at 100 pixels."""
    at_100 = {
        subject: series
        for subject, series in quality.rates(results).items()
        if series and ", 100, " in subject
    }
    best = max(at_100, key=lambda subject: median(at_100[subject].values()), default=None)
    return Target(
        what=f"{best or 'EfficientNetLite0, 100'}: features, marginal rate, images/s",
        measured=at_100.get(best, {}) if best else {},
        at_least=1200,
        digits=0,
    )
