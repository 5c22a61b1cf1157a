"""How near the features of the engine OpenVINO are to those of TensorFlow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.models import (
    Precision,
    PreparedModel,
    executed_precision,
    load_engine,
    model_spec,
    prepare,
    resolve_weights,
)

if TYPE_CHECKING:
    from pathlib import Path

LEAST_COSINE: dict[Precision, float] = {"f32": 0.9999, "bf16": 0.999}


def prepared(name: str, *, cache: Path, weights: str = "imagenet", **options: Any) -> PreparedModel:
    spec = model_spec(name)
    found = resolve_weights(spec, weights, cache=cache)
    return prepare(spec, found, cache=cache, **({"precision": "f32"} | options))


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def check_agreement(name: str, weights: str, images: np.ndarray, cache: Path) -> None:
    """Compare both engines on drawings of which the fourth shows another fruit than the first."""
    options = {"weights": weights, "input_size": images.shape[1:3]}
    model = prepared(name, cache=cache, engine="tensorflow", **options)
    reference = load_engine(model, threads=2).compute(images)
    # All features share a large part, which would hide differences: centred ones do not.
    centre = reference.mean(0)
    assert cosines(reference[:1], reference[3:4]).max() < 0.9999
    for precision in sorted({"f32", model_spec(name).fast_precision}):
        least = LEAST_COSINE[precision]
        model = prepared(name, cache=cache, precision=precision, **options)
        engine = load_engine(model, threads=2)
        features = engine.compute(images)
        # Without AVX-512 there is no bf16, not even emulated: f32 stands in for it, and says so.
        assert engine.precision == executed_precision(model)
        assert engine.precision in {precision, "f32"}
        assert features.shape == (len(images), model.dimensions)
        assert features.dtype == np.float32
        assert cosines(features, reference).min() >= least, precision
        if precision == "f32":
            assert cosines(features - centre, reference - centre).min() >= least
