"""The price of a setting is measured on images, in cosines to a reference."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from toolkit.models import fidelity as module
from toolkit.models import measure_fidelity


@dataclass
class Setting:
    """Stands for a prepared network, and for its engine: the features of any images."""

    features: np.ndarray
    input_size: tuple[int, int] = (8, 8)
    seen: list[tuple[int, ...]] = field(default_factory=list)

    def compute(self, images: np.ndarray) -> np.ndarray:
        self.seen.append(images.shape)
        return self.features


@pytest.fixture(autouse=True)
def engines(monkeypatch):
    monkeypatch.setattr(module, "load_engine", lambda setting, **_: setting)


def black(size):
    return np.zeros((3, *size, 3), np.uint8)


def features(*, seed):
    """Return features as networks give them: with a large part that all images share."""
    return (5 + np.random.default_rng(seed).random((3, 40))).astype(np.float32)


def test_a_network_is_as_near_to_itself_as_can_be():
    exact = Setting(features(seed=0))
    fidelity = measure_fidelity(exact, exact, black)
    assert (fidelity.mean, fidelity.least, fidelity.centred) == (1.0, 1.0, pytest.approx(1.0))
    assert fidelity.images == 3


def test_cosines_are_those_of_each_image_and_centred_ones_show_more_of_the_difference():
    a, b = features(seed=0), features(seed=1)
    fidelity = measure_fidelity(Setting(a), Setting(b), black)
    cosines = [x @ y / np.sqrt((x @ x) * (y @ y)) for x, y in zip(a, b, strict=True)]
    assert fidelity.mean == pytest.approx(np.mean(cosines), abs=1e-6)
    assert fidelity.least == pytest.approx(np.min(cosines), abs=1e-6)
    assert 0.9 < fidelity.least < fidelity.mean < 1
    x, y = a - a.mean(axis=0), b - b.mean(axis=0)
    lengths = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    assert fidelity.centred == pytest.approx(np.mean((x * y).sum(axis=1) / lengths), abs=1e-5)
    assert fidelity.centred < 0.5


def test_each_setting_is_given_images_of_its_size():
    small, native = Setting(features(seed=0), (5, 6)), Setting(features(seed=1), (9, 8))
    measure_fidelity(small, native, black)
    assert small.seen == [(3, 5, 6, 3)]
    assert native.seen == [(3, 9, 8, 3)]


def test_images_without_any_feature_are_alike():
    blind = Setting(np.zeros((3, 4), np.float32))
    fidelity = measure_fidelity(blind, blind, black)
    assert (fidelity.mean, fidelity.least, fidelity.centred) == (1, 1, 1)


def test_one_image_is_too_few():
    alone = Setting(np.ones((1, 4), np.float32))
    with pytest.raises(ValueError, match="no comparing"):
        measure_fidelity(alone, alone, black)


def test_features_of_other_lengths_are_not_compared():
    with pytest.raises(ValueError, match="no comparing"):
        measure_fidelity(Setting(np.ones((3, 4))), Setting(np.ones((3, 5))), black)
