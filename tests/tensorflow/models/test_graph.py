"""The graph sees what each network was trained to see, with the weights it was told to use."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toolkit.errors import RequestError
from toolkit.models import ModelSpec, model_spec, resolve_weights
from toolkit.models.graph import (
    _build_backbone,
    _draw_weights,
    _load_weights,
    _preprocess,
    build_network,
    count_multiply_adds,
)

KERAS_MODULES = {
    "ResNet50": "resnet",
    "MobileNetV2": "mobilenet_v2",
    "InceptionV3": "inception_v3",
    "Xception": "xception",
    "VGG16": "vgg16",
    "VGG19": "vgg19",
}


def colours(spec: ModelSpec) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, *spec.input_size, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", KERAS_MODULES)
def test_pixels_are_preprocessed_as_keras_does_it(keras, name):
    spec = model_spec(name)
    module = getattr(keras.applications, KERAS_MODULES[name])
    ours = keras.ops.convert_to_numpy(_preprocess(spec, keras.ops.convert_to_tensor(colours(spec))))
    theirs = module.preprocess_input(colours(spec).astype(np.float32))
    np.testing.assert_allclose(ours, theirs, atol=2e-5)


def test_efficientnet_lite_takes_pixels_less_127_over_128(keras):
    spec = model_spec("EfficientNetLite0")
    ours = keras.ops.convert_to_numpy(_preprocess(spec, keras.ops.convert_to_tensor(colours(spec))))
    np.testing.assert_allclose(ours, (colours(spec).astype(float) - 127) / 128, atol=1e-6)


def test_weights_saved_by_keras_give_the_features_of_the_network_they_were_saved_from(
    keras, tmp_path
):
    """Also with the old HDF5 layout, which the published files have."""
    spec = model_spec("MobileNetV2")
    trained = keras.applications.MobileNetV2(
        include_top=False, weights=None, pooling="avg", input_shape=(224, 224, 3)
    )
    pixels = colours(spec)
    ready = keras.applications.mobilenet_v2.preprocess_input(pixels.astype(np.float32))
    expected = keras.ops.convert_to_numpy(trained(ready, training=False))
    trained.save_weights(tmp_path / "new.weights.h5")
    save_old_layout(trained, tmp_path / "old.h5")
    for name in ("new.weights.h5", "old.h5"):
        weights = resolve_weights(spec, str(tmp_path / name), cache=tmp_path)
        model, sha256 = build_network(spec, weights)
        assert sha256 == weights.sha256
        features = keras.ops.convert_to_numpy(model(pixels, training=False))
        np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-6)


def save_old_layout(model: Any, path: Path) -> None:
    import h5py
    from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group

    with h5py.File(path, "w") as file:
        save_weights_to_hdf5_group(file, model)


@pytest.fixture(scope="module")
def default_backbone(keras: Any) -> Any:
    return _build_backbone(model_spec("EfficientNetLite0"), (224, 224))


def load(backbone: Any, path: Path) -> None:
    spec = model_spec("EfficientNetLite0")
    _load_weights(spec, backbone, resolve_weights(spec, str(path), cache=path.parent))


def test_weights_of_another_network_are_refused_by_the_name_of_their_file(
    keras, default_backbone, tmp_path
):
    path = tmp_path / "other.weights.h5"
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).save_weights(path)
    with pytest.raises(RequestError, match=r"other\.weights\.h5 holds no weights for Efficient"):
        load(default_backbone, path)


@pytest.mark.parametrize("name", ["text.h5", "text.weights.h5", "text.keras", "text.pth", "text"])
def test_a_file_that_holds_no_weights_is_refused_by_its_name(default_backbone, tmp_path, name):
    path = tmp_path / name
    path.write_text("no weights here")
    with pytest.raises(RequestError, match=f"{name} holds no weights"):
        load(default_backbone, path)


def test_a_seed_always_gives_the_same_weights_and_another_seed_others(keras):
    spec = replace(model_spec("EfficientNetLite0"), input_size=(32, 32))
    layers = keras.layers

    def draw(seed: int) -> tuple[str, np.ndarray]:
        small = keras.Sequential(
            [
                keras.Input((32, 32, 3)),
                layers.SeparableConv2D(8, 3, use_bias=False),
                layers.BatchNormalization(name="norm"),
                layers.GlobalAveragePooling2D(),
            ]
        )
        sha256 = _draw_weights(spec, small, seed=seed)
        return sha256, keras.ops.convert_to_numpy(small.get_layer("norm").moving_variance)

    sha256, variance = draw(0)
    assert draw(0)[0] == sha256
    np.testing.assert_array_equal(draw(0)[1], variance)
    assert draw(1)[0] != sha256
    assert (variance != 1).all()  # the statistics are those of images, not the initial ones


def test_a_network_has_the_arithmetic_published_and_the_dimensions_the_zoo_says(default_backbone):
    """Of all seven: tests/release/test_networks.py."""
    spec = model_spec("EfficientNetLite0")
    assert default_backbone.output_shape == (None, spec.dimensions)
    # Published is 0.407, less the classifier.
    assert count_multiply_adds(default_backbone) / 1e9 == pytest.approx(0.407, rel=0.06)
    least = _build_backbone(spec, (spec.least_side, spec.least_side + 1))
    assert least.output_shape == (None, spec.dimensions)


MOBILE = model_spec("MobileNetV2")
SEED = resolve_weights(MOBILE, "random:3", cache=Path())


@pytest.fixture(scope="module")
def native(keras: Any) -> tuple[Any, str]:
    """Return MobileNetV2 at its own size with random weights, and their digest."""
    return build_network(MOBILE, SEED)


def test_a_seed_means_the_same_weights_at_every_size(native):
    """And another size is another graph: MobileNetV2 pads by the size of its input."""
    small, sha256 = build_network(MOBILE, SEED, input_size=(97, 64))
    assert small.input_shape == (None, 97, 64, 3)
    assert sha256 == native[1]
    for ours, theirs in zip(small.get_weights(), native[0].get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("head", "shape"), [("flat", (None, 7 * 7 * 1280)), ("classes", (None, 1000))]
)
def test_a_seed_means_the_same_weights_under_every_head(native, head, shape):
    pooled = native[0].get_weights()
    headed = build_network(MOBILE, SEED, head=head)[0]
    for ours, theirs in zip(headed.get_weights()[: len(pooled)], pooled, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert headed.output_shape == shape


def test_keras_obeys_no_settings_of_the_user(keras):
    assert keras.backend.backend() == "tensorflow"
    # Whichever test imported it first: it was not from the user's ~/.keras.
    assert Path(os.environ["KERAS_HOME"]) != Path.home() / ".keras"
