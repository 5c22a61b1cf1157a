"""What smaller images and coarser numbers cost: cosine to the reference, accuracy, images/s."""

from __future__ import annotations

import io
from functools import cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.bench import Bench, Case, Step
from benchmarks.cases import engine, pipeline
from benchmarks.figures import Series, shown
from benchmarks.images import mirrored_samples, repeated
from benchmarks.measure import CommandFailed
from benchmarks.networks import EFFICIENTNET, Network
from benchmarks.ours import measure_run, toolkit_run
from benchmarks.settings import REFERENCE, offered_settings
from benchmarks.table import Table
from toolkit.runs import RunFolder

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from benchmarks.results import Results

__all__ = ["CASE", "probe_accuracy", "rates"]

_NAME = "quality"
_SPEED = ": speed"
_SAMPLE_IMAGES = 504


class Features(NamedTuple):
    """Origins, labels and vectors (n, d) of images, in the order of their origins."""

    origins: list[str]
    labels: list[str]
    vectors: NDArray[np.float32]

    def split(self, part: str) -> tuple[NDArray[np.float32], list[str]]:
        """Return vectors and labels below ``Training`` or ``Test``."""
        chosen = [place for place, origin in enumerate(self.origins) if f"/{part}/" in origin]
        return self.vectors[chosen], [self.labels[place] for place in chosen]


def rates(results: Results, *, of: str = "features_seconds") -> dict[str, Series]:
    """Return the marginal rate in each setting: of fetching, decoding, inferring and writing."""
    return {
        setting: pipeline.images_per_second(results, _NAME, setting + _SPEED, of=of)
        for setting in _settings(results)
    }


def _settings(results: Results) -> list[str]:
    names = (subject.removesuffix(_SPEED) for subject in results.subjects(_NAME))
    return list(dict.fromkeys(names))


def probe_accuracy(features: Features) -> float:
    """Return the share of the test images that a logistic regression names from their features."""
    from sklearn.linear_model import LogisticRegression

    probe = LogisticRegression(max_iter=1000).fit(*features.split("Training"))
    return float(probe.score(*features.split("Test")))


def cosines(vectors: NDArray[np.float32], reference: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the cosine of each vector to that of the same image in another setting."""
    a, b = vectors.astype(np.float64), reference.astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosine: NDArray[np.float64] = np.einsum("nd,nd->n", a, b) / norms
    return cosine


def _steps(bench: Bench) -> list[Step]:
    settings = offered_settings(EFFICIENTNET)
    features = [
        Step(
            subject=subject,
            size=_SAMPLE_IMAGES,
            measure=partial(_measure_features, bench, network),
            once=True,
        )
        for subject, network in settings.items()
    ]
    speed = [
        Step(
            subject=subject + _SPEED,
            size=count,
            measure=partial(_measure_speed, bench, network, count),
        )
        for subject, network in settings.items()
        for count in bench.scale.fast_images
    ]
    return features + speed


def _measure_features(bench: Bench, network: Network) -> dict[str, Any]:
    reference = _features(bench, offered_settings(EFFICIENTNET)[REFERENCE])
    features = _features(bench, network)
    if features.origins != reference.origins:
        raise CommandFailed("The two runs have different images.")
    cosine = cosines(features.vectors, reference.vectors)
    return {
        "least_cosine": float(cosine.min()),
        "median_cosine": float(np.median(cosine)),
        "accuracy": probe_accuracy(features),
        "tested": len(features.split("Test")[1]),
    }


@cache
def _features(bench: Bench, network: Network) -> Features:
    """Run the pipeline on the sample images and read its features back."""
    storage = bench.stack.storage
    with toolkit_run(bench, mirrored_samples(storage).uri, network) as (_, record):
        folder = RunFolder(storage, record["run_id"]).file("features")
        table = pa.concat_tables(
            pq.read_table(io.BytesIO(storage.read(entry.location)))
            for entry in storage.objects(folder)
            if entry.location.key.endswith(".parquet")
        ).sort_by("origin")
    vectors = np.stack(table["features"].to_numpy())
    return Features(table["origin"].to_pylist(), table["label"].to_pylist(), vectors)


def _measure_speed(bench: Bench, network: Network, count: int) -> dict[str, Any]:
    return measure_run(bench, repeated(bench.stack.storage, count).uri, network)


def _tables(results: Results) -> list[Table]:
    rows = []
    of_runs = rates(results, of="seconds")
    for setting, rate in rates(results).items():
        figure = partial(results.series, _NAME, setting, _SAMPLE_IMAGES)
        rows.append(
            [
                setting,
                shown(figure("median_cosine"), digits=5),
                shown(figure("least_cosine"), digits=5),
                shown({number: 100 * share for number, share in figure("accuracy").items()}),
                shown(rate),
                shown(of_runs[setting]),
                shown(engine.best_rate(results, setting)),
            ]
        )
    return [
        Table(
            "The price of speed",
            [
                "network, pixels, precision",
                "median cosine",
                "least cosine",
                "linear probe, % right",
                "features, images/s, marginal",
                "whole run, images/s, marginal",
                "engine alone",
            ],
            rows,
            f"Cosine to the features of {REFERENCE}, over the sample images. The probe is a "
            "logistic regression, fitted to the features of Training/, tested on Test/. Features "
            "are measured once: every run gives the same.",
        )
    ]


CASE = Case(
    name=_NAME,
    about="input sizes and precisions: cosine, linear probe, images/s",
    steps=_steps,
    tables=_tables,
)
