"""Writes a network of the zoo as the files that an engine loads."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from toolkit.models.graph import build_network, count_multiply_adds
from toolkit.models.openvino_import import import_openvino
from toolkit.models.quantization import quantize
from toolkit.models.tensorflow_import import import_tensorflow

if TYPE_CHECKING:
    from pathlib import Path

    from toolkit.models.quantization import Calibration
    from toolkit.models.weights import ResolvedWeights
    from toolkit.models.zoo import Head, ModelSpec

__all__ = ["ENGINE_FILES", "Converted", "EngineName", "convert", "convert_to_int8"]

EngineName = Literal["openvino", "tensorflow"]

ENGINE_FILES: dict[EngineName, tuple[str, ...]] = {
    "openvino": ("model.xml", "model.bin"),
    "tensorflow": ("model.keras",),
}
"""What each engine loads."""


@dataclass(frozen=True, kw_only=True)
class Converted:
    """What only a conversion tells about a network.

    Parameters
    ----------
    weights_sha256
        Of the weights file, or of the random tensors.
    dimensions
        Length of what the network gives for one image.
    multiply_adds
        Arithmetic for one image at the input size: multiply-adds of all kernels.
    """

    weights_sha256: str
    dimensions: int
    multiply_adds: int


def convert(  # noqa: PLR0913 - what to convert, and where to
    spec: ModelSpec,
    weights: ResolvedWeights,
    *,
    engine: EngineName,
    input_size: tuple[int, int],
    head: Head,
    folder: Path,
    keras_home: Path,
) -> Converted:
    """Build a network and write its files, in f32; this imports TensorFlow.

    Parameters
    ----------
    spec
        The network.
    weights
        Its weights.
    engine
        The engine that is to load it.
    input_size
        Height and width in pixels.
    head
        What the network ends in.
    folder
        Where `ENGINE_FILES` go.
    keras_home
        Folder for Keras' own settings.

    Raises
    ------
    RequestError
        When the weights do not fit the network.
    """
    tensorflow = import_tensorflow(keras_home=keras_home)
    model, sha256 = build_network(spec, weights, input_size=input_size, head=head)
    if engine == "tensorflow":
        model.save(folder / "model.keras")
    else:
        pixels = tensorflow.TensorSpec([None, *input_size, 3], tensorflow.uint8, name="pixels")
        inference = tensorflow.function(
            lambda pixels: model(pixels, training=False), input_signature=[pixels]
        )
        network = import_openvino().convert_model(inference.get_concrete_function())
        _save(network, folder)
    return Converted(
        weights_sha256=sha256,
        dimensions=model.output.shape[-1],
        multiply_adds=count_multiply_adds(model),
    )


def convert_to_int8(
    exact: Path, calibration: Calibration, *, input_size: tuple[int, int], folder: Path
) -> None:
    """Quantize a network that was converted for OpenVINO.

    Parameters
    ----------
    exact
        Folder of the network in f32.
    calibration
        Images to measure the ranges of its activations on.
    input_size
        Height and width in pixels.
    folder
        Where `ENGINE_FILES` go.

    Raises
    ------
    RequestError
        When NNCF is not installed, or there are no images.
    """
    network = import_openvino().Core().read_model(exact / "model.xml")
    _save(quantize(network, calibration, input_size=input_size), folder)


def _save(network: Any, folder: Path) -> None:
    """Save a network so that the same one has the same bytes.

    Names that OpenVINO makes up hold numbers that count on through the process.
    """
    kinds: Counter[str] = Counter()
    for operation in network.get_ordered_ops():
        kind = operation.get_type_name()
        if kind not in {"Parameter", "Result"}:
            operation.set_friendly_name(f"{kind}_{kinds[kind]}")
            kinds[kind] += 1
    import_openvino().save_model(network, folder / "model.xml", compress_to_fp16=False)
