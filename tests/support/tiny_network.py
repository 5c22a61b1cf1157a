"""A network of a few kilobytes, for tests that do not look at its features."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from toolkit.models.conversion import Converted, _save
from toolkit.models.openvino_import import import_openvino

if TYPE_CHECKING:
    from pathlib import Path

    from toolkit.models import ModelSpec
    from toolkit.models.weights import ResolvedWeights

DIMENSIONS = 8
# More than those that quantization leaves in f32.
_CONVOLUTIONS = 5


def convert_to_tiny(
    spec: ModelSpec,
    weights: ResolvedWeights,
    *,
    input_size: tuple[int, int],
    folder: Path,
    **options: object,
) -> Converted:
    """Stand for `toolkit.models.conversion.convert`, without TensorFlow: milliseconds."""
    openvino = import_openvino()
    ops = openvino.opset13
    chance = np.random.default_rng(0)
    pixels = ops.parameter([-1, *input_size, 3], openvino.Type.u8, name="pixels")
    tensor = ops.transpose(ops.convert(pixels, "f32"), np.array([0, 3, 1, 2]))
    tensor = ops.multiply(tensor, np.float32(1 / 255))
    for number in range(_CONVOLUTIONS):
        shape = (DIMENSIONS, DIMENSIONS if number else 3, 3, 3)
        kernel = chance.normal(0, 0.3, shape).astype(np.float32)
        stride = [2, 2] if number < 2 else [1, 1]
        tensor = ops.relu(ops.convolution(tensor, kernel, stride, [1, 1], [1, 1], [1, 1]))
    features = ops.reduce_mean(tensor, np.array([2, 3]), keep_dims=False)
    # Without names of ours, OpenVINO counts on: the next one's bytes would be others.
    features.output(0).get_tensor().set_names({"features"})
    result = ops.result(features, name="features")
    _save(openvino.Model([result], [pixels], "tiny"), folder)
    sha256 = weights.sha256 or weights.identity
    return Converted(weights_sha256=sha256, dimensions=DIMENSIONS, multiply_adds=1_000_000)
