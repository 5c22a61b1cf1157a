"""The price of a setting is measured on images, in cosines to a reference."""

from __future__ import annotations

import numpy as np
import pytest

from toolkit.folders import cache_folder
from toolkit.models import (
    PreparedModel,
    load_engine,
    measure_fidelity,
    model_spec,
    prepare,
    resolve_weights,
)

SPEC = model_spec("EfficientNetLite0")


@pytest.fixture(scope="module")
def exact() -> PreparedModel:
    weights = resolve_weights(SPEC, "imagenet", cache=cache_folder())
    return prepare(SPEC, weights, precision="f32", cache=cache_folder())


def test_a_network_is_as_near_to_itself_as_can_be(exact, draw_fruit):
    fidelity = measure_fidelity(exact, exact, draw_fruit)
    assert (fidelity.mean, fidelity.least, fidelity.centred) == (1.0, 1.0, pytest.approx(1.0))
    assert fidelity.images == 6


@pytest.mark.slow
def test_a_smaller_size_costs_something_and_centred_features_show_more_of_it(exact, draw_fruit):
    weights = resolve_weights(SPEC, "imagenet", cache=cache_folder())
    smaller = prepare(SPEC, weights, precision="f32", input_size=208, cache=cache_folder())
    fidelity = measure_fidelity(smaller, exact, draw_fruit)
    a, b = (
        load_engine(model, threads=1).compute(draw_fruit(model.input_size))
        for model in (smaller, exact)
    )
    cosines = [x @ y / np.sqrt((x @ x) * (y @ y)) for x, y in zip(a, b, strict=True)]
    assert fidelity.mean == pytest.approx(np.mean(cosines), abs=1e-6)
    assert fidelity.least == pytest.approx(np.min(cosines), abs=1e-6)
    assert 0.9 < fidelity.least < fidelity.mean < 1
    assert 0.5 < fidelity.centred < fidelity.mean


@pytest.mark.slow
def test_each_setting_is_given_images_of_its_size(exact, draw_fruit):
    asked = []

    def images(size):
        asked.append(size)
        return draw_fruit(size)

    measure_fidelity(exact, exact, images)
    assert asked == [(224, 224)] * 2


def test_images_without_any_feature_are_alike(exact, monkeypatch):
    class Blind:
        def compute(self, images):
            return np.zeros((len(images), 4), np.float32)

    monkeypatch.setattr("toolkit.models.fidelity.load_engine", lambda *_, **__: Blind())
    fidelity = measure_fidelity(exact, exact, lambda size: np.zeros((3, *size, 3), np.uint8))
    assert (fidelity.mean, fidelity.least, fidelity.centred) == (1, 1, 1)


def test_one_image_is_too_few(exact, draw_fruit):
    with pytest.raises(ValueError, match="no comparing"):
        measure_fidelity(exact, exact, lambda size: draw_fruit(size)[:1])
