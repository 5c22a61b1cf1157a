"""The settings that trade features for speed: smaller images, coarser numbers."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from benchmarks.machine import computes_bf16
from benchmarks.networks import EFFICIENTNET, RESNET50

if TYPE_CHECKING:
    from benchmarks.networks import Network

__all__ = ["REFERENCE", "offered_settings", "setting_name"]

# The networks' own size, and for the one that has trained weights down to that of the images.
_SIZES = {RESNET50: (224,), EFFICIENTNET: (224, 160, 128, 100)}


def setting_name(network: Network, input_size: int, precision: str) -> str:
    """Name a setting in tables and raw results."""
    return f"{network.model}, {input_size}, {precision}"


REFERENCE = setting_name(EFFICIENTNET, 224, "f32")


def offered_settings(*networks: Network) -> dict[str, Network]:
    """Return every input size in every precision that this machine does not emulate."""
    precisions = ["f32", *(["bf16"] if computes_bf16() else []), "int8"]
    return {
        setting_name(network, size, precision): replace(
            network, input_size=None if size == _SIZES[network][0] else size, precision=precision
        )
        for network in networks
        for size in _SIZES[network]
        for precision in precisions
    }
