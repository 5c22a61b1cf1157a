"""All seven networks, built, converted and run at their own sizes: minutes, so not in the gate.

The gate has the default network and MobileNetV2 for real, and the others' preprocessing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.support.engine_agreement import check_agreement, prepared
from tests.support.fruit_drawings import draw_fruit, model_cache
from tests.support.quantized import Pair, check_features_of_int8, quantized_pair, training_images
from toolkit.models import MODELS, Calibration, measure_fidelity, model_spec
from toolkit.models.graph import _build_backbone, count_multiply_adds
from toolkit.models.tensorflow_import import import_tensorflow

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["draw_fruit", "model_cache"]

DEFAULT = "EfficientNetLite0"

# In thousand millions, as published, less the classifier: He et al. 2015 (ResNet-50, 3.8), Sandler
# et al. 2018 (MobileNetV2, 0.30), Szegedy et al. 2015 (Inception v3, 5.7), Chollet 2017 (Xception,
# 8.4), Simonyan & Zisserman 2014 (VGG, 15.3 and 19.6), and the README of EfficientNet-Lite (0.407).
PUBLISHED = {
    "EfficientNetLite0": 0.407,
    "ResNet50": 3.8,
    "MobileNetV2": 0.30,
    "InceptionV3": 5.7,
    "Xception": 8.4,
    "VGG16": 15.3,
    "VGG19": 19.6,
}


@pytest.fixture(scope="module", autouse=True)
def keras(model_cache: Path) -> Any:
    import_tensorflow(keras_home=model_cache / "keras")
    import keras

    return keras


@pytest.mark.parametrize("name", MODELS)
def test_both_engines_give_every_network_the_same_features(name, model_cache, draw_fruit):
    check_agreement(name, "random:0", draw_fruit(model_spec(name).input_size), model_cache)


@pytest.mark.parametrize("size", [(224, 224), (97, 128)])
def test_both_engines_give_the_default_network_the_same_features(size, model_cache, draw_fruit):
    check_agreement(DEFAULT, "imagenet", draw_fruit(size), model_cache)


@pytest.mark.parametrize("name", MODELS)
def test_every_network_has_the_arithmetic_published_and_the_dimensions_the_zoo_says(name):
    spec = model_spec(name)
    native = _build_backbone(spec, spec.input_size)
    assert native.output_shape == (None, spec.dimensions)
    assert count_multiply_adds(native) / 1e9 == pytest.approx(PUBLISHED[name], rel=0.06)
    least = _build_backbone(spec, (spec.least_side, spec.least_side + 1))
    assert least.output_shape == (None, spec.dimensions)


@pytest.fixture(scope="module")
def pair(model_cache: Path) -> Pair:
    return quantized_pair(224, cache=model_cache)


def test_int8_at_the_native_size_stays_near_to_f32_and_tells_images_apart_as_well(pair):
    check_features_of_int8(pair)


def test_a_network_of_another_family_can_be_quantized(model_cache):
    """Features of random weights are chaotic: this is no price, only a sign of life."""
    few = Calibration(identity="few", images=lambda size: training_images(size, 16))
    options = {"weights": "random:0", "input_size": 64, "cache": model_cache}
    f32 = prepared("ResNet50", **options)
    int8 = prepared("ResNet50", precision="int8", calibration=few, **options)
    fidelity = measure_fidelity(int8, f32, lambda size: training_images(size, 16))
    assert fidelity.least > 0.85
    assert fidelity.centred > 0.25
    assert np.isfinite(fidelity.mean)
