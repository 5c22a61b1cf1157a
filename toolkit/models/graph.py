"""Builds a network of the zoo as one Keras graph with its weights: uint8 pixels to features."""

from __future__ import annotations

import hashlib
import warnings
from math import prod, sqrt
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np

from toolkit.errors import RequestError
from toolkit.models.efficientnet_lite import build_efficientnet_lite0, load_state_dict
from toolkit.models.zoo import CLASSES, DEFAULT_MODEL

if TYPE_CHECKING:
    from pathlib import Path

    from toolkit.models.weights import ResolvedWeights
    from toolkit.models.zoo import Head, ModelSpec

__all__ = ["GRAPH_VERSION", "build_network", "count_multiply_adds"]

GRAPH_VERSION = 2
"""Raised whenever this package builds another graph from the same weights."""

_CALIBRATION_IMAGES = 8


def build_network(
    spec: ModelSpec,
    weights: ResolvedWeights,
    *,
    input_size: tuple[int, int] | None = None,
    head: Head = "pooled",
) -> tuple[Any, str]:
    """Build a network; TensorFlow must have been imported by `import_tensorflow`.

    Parameters
    ----------
    spec
        The network.
    weights
        Its weights; random ones are the same tensors at every size and under every head.
    input_size
        Height and width in pixels; None for the native size.
    head
        What the network ends in.

    Returns
    -------
    model : keras.Model
        ``[N, height, width, 3]`` uint8 RGB to float32, ``[N, dimensions]`` (pooled), ``[N, rows *
        columns * dimensions]`` (flat) or ``[N, 1000]`` (classes). Preprocessing is in the graph, so
        that no engine can get it wrong.
    sha256 : str
        Of the weights file's content; for random weights, of the tensors drawn.

    Raises
    ------
    RequestError
        When the file does not fit the network.
    """
    import keras

    size = input_size or spec.input_size
    backbone = _build_backbone(spec, size, head)
    if weights.seed is not None:
        # At another size the moving statistics would be others: all sizes get those of the native.
        native = (
            backbone if size == spec.input_size else _build_backbone(spec, spec.input_size, head)
        )
        sha256 = _draw_weights(spec, native, seed=weights.seed)
        if native is not backbone:
            backbone.set_weights(native.get_weights())
    else:
        sha256 = str(weights.sha256)
        _load_weights(spec, backbone, weights, head=head)
    pixels = keras.Input((*size, 3), dtype="uint8", name="pixels")
    return keras.Model(pixels, backbone(_preprocess(spec, pixels)), name=spec.name), sha256


def count_multiply_adds(model: Any) -> int:
    """Count the multiply-adds of all kernels for one image; the rest is little beside them.

    Parameters
    ----------
    model : keras.Model
        From `build_network`.
    """
    import keras

    count = 0
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            count += count_multiply_adds(layer)
            continue
        kernels = [weight for weight in layer.weights if "kernel" in weight.name]
        if kernels:
            # A kernel is applied once for each pixel that comes out, of which a vector is one.
            pixels = prod(layer.output.shape[1:-1])
            count += pixels * sum(prod(kernel.shape) for kernel in kernels)
    return count


def _build_backbone(spec: ModelSpec, input_size: tuple[int, int], head: Head = "pooled") -> Any:
    import keras

    if spec.name == DEFAULT_MODEL:
        return build_efficientnet_lite0(input_size, head=head)
    network = getattr(keras.applications, spec.name)
    shape = (*input_size, 3)
    if head == "classes":
        return network(weights=None, classes=CLASSES, input_shape=shape)
    pooling = "avg" if head == "pooled" else None
    backbone = network(include_top=False, weights=None, pooling=pooling, input_shape=shape)
    if head == "pooled":
        return backbone
    return keras.Model(backbone.input, keras.layers.Flatten()(backbone.output))


def _preprocess(spec: ModelSpec, pixels: Any) -> Any:
    import keras

    how = spec.preprocessing
    if how.channels == "BGR":
        pixels = keras.ops.flip(pixels, axis=-1)
    return keras.layers.Rescaling(how.scale, list(how.offset))(pixels)


def _load_weights(
    spec: ModelSpec, backbone: Any, weights: ResolvedWeights, *, head: Head = "pooled"
) -> None:
    path = weights.path
    try:
        if str(path).endswith(".pth") and spec.name == DEFAULT_MODEL:
            load_state_dict(backbone, _given(path))
        else:
            _load_keras_weights(backbone, _given(path))
    except _UNFIT as exc:
        raise RequestError(
            f"{weights.source} holds no weights for {spec.name}: {exc}",
            remedy=f"Weights from a file are what Keras saves of {spec.name} with "
            f"include_top={head == 'classes'} (.weights.h5, .h5 or .keras).",
        ) from exc


# What Keras, h5py and zipfile raise on a file of another network or format, or a cut one.
_UNFIT = (ValueError, OSError, KeyError, TypeError, IndexError, BadZipFile, UserWarning)


def _load_keras_weights(backbone: Any, path: Path) -> None:
    with warnings.catch_warnings():
        # Keras only warns when it leaves some layers with their fresh, random weights.
        warnings.simplefilter("error", UserWarning)
        backbone.load_weights(str(path))


def _given(path: Path | None) -> Path:
    if path is None:
        raise ValueError("no weights file")
    return path


def _draw_weights(spec: ModelSpec, backbone: Any, *, seed: int) -> str:
    """Set random weights under which features still tell images apart.

    Kernels are He-normal (He et al. 2015, https://arxiv.org/abs/1502.01852), drawn by NumPy so that
    a seed means the same tensors on every machine. With the usual moving statistics of 0 and 1, a
    deep network would map all images to nearly one direction: one pass over seeded images sets
    them to what the layers really see.

    Returns
    -------
    str
        SHA-256 over the drawn tensors. The statistics follow from them, up to rounding that differs
        between machines, and are left out of it.
    """
    rng = np.random.default_rng(seed)
    digest = hashlib.sha256()
    for weight in backbone.weights:
        if "kernel" in weight.name:
            drawn = rng.standard_normal(weight.shape, dtype=np.float32)
            drawn *= np.float32(sqrt(2 / _fan_in(weight)))
            weight.assign(drawn)
            digest.update(drawn)
    # Images of their own numbers: under a classifier more are drawn than without one.
    images = _seeded_images(spec, np.random.default_rng([seed, _CALIBRATION_IMAGES]))
    _calibrate(backbone, _preprocess(spec, images))
    return digest.hexdigest()


def _fan_in(kernel: Any) -> int:
    """Count the inputs to one output; a depthwise kernel (height, width, channels, 1) sums none."""
    depthwise = kernel.shape[-1] == 1
    return prod(kernel.shape[:2] if depthwise else kernel.shape[:-1])


def _seeded_images(spec: ModelSpec, rng: np.random.Generator) -> np.ndarray:
    """Draw images of coloured squares, from coarse to fine, ``[8, height, width, 3]`` float32."""
    height, width = spec.input_size
    images = []
    for index in range(_CALIBRATION_IMAGES):
        squares = 2 ** (index + 1)
        colours = rng.integers(0, 256, (squares, squares, 3)).astype(np.float32)
        rows = np.arange(height) * squares // height
        columns = np.arange(width) * squares // width
        images.append(colours[rows][:, columns])
    return np.stack(images)


def _calibrate(backbone: Any, images: Any) -> None:
    import keras

    norms = [
        layer for layer in backbone.layers if isinstance(layer, keras.layers.BatchNormalization)
    ]
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 0.0  # moving statistics become those of this batch
    backbone(images, training=True)
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum
