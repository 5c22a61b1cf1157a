"""Quantizes a converted network to 8-bit integers, its ranges measured on the user's own images."""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from toolkit.errors import RequestError
from toolkit.models.nncf_import import import_nncf

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["CALIBRATION_IMAGES", "QUANTIZATION_VERSION", "Calibration", "quantize"]

QUANTIZATION_VERSION = 1
"""Raised whenever this package quantizes the same network otherwise."""

CALIBRATION_IMAGES = 128
"""How many images to calibrate with. 300 gave the same cosines in twice the time
(EfficientNetLite0, ImageNet weights, sample images, 224 and 100 pixels: median 0.996)."""

# The first ones see few channels at full resolution: little arithmetic, much of the error. With
# them in f32, EfficientNetLite0's median cosine at 224 pixels rises from 0.982 to 0.996, its least
# from 0.951 to 0.991.
_EXACT_CONVOLUTIONS = 3
_CONVOLUTIONS = ("Convolution", "GroupConvolution")


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Images like those that a network is to see.

    Parameters
    ----------
    identity
        What tells them from any others, for example a hash over their names and ETags. Part of the
        prepared model's key.
    images
        Takes height and width in pixels and returns the decoded images, ``[N, height, width, 3]``
        uint8 RGB. Called only where the network is not to be found quantized; `CALIBRATION_IMAGES`
        of them, spread over all that there are, suffice.
    """

    identity: str
    images: Callable[[tuple[int, int]], NDArray[np.uint8]]


def quantize(network: Any, calibration: Calibration, *, input_size: tuple[int, int]) -> Any:
    """Quantize a network after training.

    Weights get 7 of the 8 bits (``OverflowFix.ENABLE``): processors without VNNI add products in
    pairs in 16 bits, which full weights overflow, and there the features of a network that keeps
    0.996 to f32 elsewhere fell to 0.86. So they are the same on every processor.

    Parameters
    ----------
    network : openvino.Model
        What to quantize; it is not changed.
    calibration
        Images to measure the ranges of its activations on.
    input_size
        Height and width in pixels.

    Returns
    -------
    openvino.Model
        The same images give the same model, on one kind of processor.

    Raises
    ------
    RequestError
        When there are no images, or not of this size.
    """
    images = calibration.images(input_size)
    if images.dtype != "uint8" or images.shape[1:] != (*input_size, 3):
        raise ValueError(f"calibration images are {images.dtype} {images.shape}")
    if len(images) == 0:
        raise RequestError(
            "Precision int8 needs images to measure the network's ranges on, and none can be read.",
            remedy="Choose the precision f32, or see which images there are: toolkit images list.",
        )
    nncf = import_nncf()
    with redirect_stdout(io.StringIO()):  # it draws progress bars there
        return nncf.quantize(
            network,
            nncf.Dataset(images, lambda image: image[None]),
            preset=nncf.QuantizationPreset.PERFORMANCE,
            subset_size=len(images),
            ignored_scope=nncf.IgnoredScope(names=_first_convolutions(network)),
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                overflow_fix=nncf.OverflowFix.ENABLE
            ),
        )


def _first_convolutions(network: Any) -> list[str]:
    names = [
        operation.get_friendly_name()
        for operation in network.get_ordered_ops()
        if operation.get_type_name() in _CONVOLUTIONS
    ]
    return names[:_EXACT_CONVOLUTIONS]
