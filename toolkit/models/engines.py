"""Runs a prepared network on batches of images: OpenVINO fast, TensorFlow as the reference."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from toolkit.errors import JobError
from toolkit.models.openvino_import import import_openvino
from toolkit.models.tensorflow_import import import_tensorflow, use_threads
from toolkit.models.zoo import model_spec

if TYPE_CHECKING:
    from collections.abc import Callable

    from toolkit.models.prepared import PreparedModel

__all__ = ["Engine", "executed_precision", "load_engine"]

# Pixels of a batch: batches of 1 to 32 were measured at 224, 160, 128 and 100 pixels on a processor
# with 1 MB of cache a core. What a batch passes from layer to layer should stay there; int8 passes
# a quarter of it. Where a pixel takes much arithmetic (ResNet50 77,000 multiply-adds,
# EfficientNetLite0 7,700), it pays more that many images share the weights which a layer fetches.
_BATCH_PIXELS = 2 * 224 * 224
_DENSE_BATCH_PIXELS = 6 * 224 * 224
_INT8_BATCH_PIXELS = 4 * 224 * 224
_DENSE_MULTIPLY_ADDS = 30_000
_LARGEST_BATCH = 32
_TENSORFLOW_BATCH = 8


class Engine(Protocol):
    """A loaded network."""

    @property
    def batch_size(self) -> int:
        """Number of images that it computes at once; any other number works too."""

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width in pixels."""

    @property
    def dimensions(self) -> int:
        """Length of what it gives for an image."""

    @property
    def precision(self) -> str:
        """What it computes in: ``f32``, ``bf16`` or ``int8``."""

    def compute(self, batch: np.ndarray) -> np.ndarray:
        """Turn images into features, or into probabilities of classes.

        Parameters
        ----------
        batch
            ``[N, height, width, 3]`` uint8 RGB; N may be 0.

        Returns
        -------
        numpy.ndarray
            ``[N, dimensions]`` float32.
        """


def load_engine(prepared: PreparedModel, *, threads: int, batch_size: int | None = None) -> Engine:
    """Load a prepared network.

    Parameters
    ----------
    prepared
        The network; its ``folder`` must be on this machine.
    threads
        Processor threads that it may use, 1 or more. TensorFlow heeds those of its first network
        in a process.
    batch_size
        Number of images to compute at once, 1 or more; None for the one measured to be fast.

    Raises
    ------
    JobError
        When files of the network are missing here.
    """
    folder = Path(prepared.folder)
    missing = [name for name in prepared.files if not (folder / name).is_file()]
    if missing:
        raise JobError(
            f"The prepared model in {folder} lacks {', '.join(missing)}.",
            remedy=f"Delete {folder} and run again: it is made anew.",
        )
    load = _load_openvino if prepared.engine == "openvino" else _load_tensorflow
    return load(prepared, threads=threads, batch_size=batch_size)


class _Engine:
    """Cuts what it is given into batches of one size for a function that computes such a batch.

    One size, the last batch filled up with black images: a fixed shape is some percent faster, and
    an image has the same features, to the last bit, in whatever company it comes.
    """

    def __init__(
        self,
        prepared: PreparedModel,
        *,
        precision: str,
        batch_size: int,
        compute: Callable[[np.ndarray], np.ndarray],
    ) -> None:
        self.batch_size = batch_size
        self.input_size = prepared.input_size
        self.dimensions = prepared.dimensions
        self.precision = precision
        self._compute_full = compute

    def compute(self, batch: np.ndarray) -> np.ndarray:
        if batch.dtype != np.uint8 or batch.shape[1:] != (*self.input_size, 3):
            raise ValueError(
                f"images must be uint8 [N, {self.input_size[0]}, {self.input_size[1]}, 3], "
                f"not {batch.dtype} {list(batch.shape)}"
            )
        results = np.empty((len(batch), self.dimensions), np.float32)
        for start in range(0, len(batch), self.batch_size):
            images = batch[start : start + self.batch_size]
            full = images if len(images) == self.batch_size else self._fill(images)
            results[start : start + len(images)] = self._compute_full(full)[: len(images)]
        return results

    def _fill(self, images: np.ndarray) -> np.ndarray:
        full = np.zeros((self.batch_size, *self.input_size, 3), np.uint8)
        full[: len(images)] = images
        return full


def executed_precision(prepared: PreparedModel) -> str:
    """Return what this machine computes the network in: ``f32``, ``bf16`` or ``int8``."""
    if prepared.engine == "tensorflow":
        return "f32"
    return _openvino_precision(prepared, import_openvino().Core())


def _load_openvino(prepared: PreparedModel, *, threads: int, batch_size: int | None) -> Engine:
    openvino = import_openvino()
    core = openvino.Core()
    precision = _openvino_precision(prepared, core)
    network = core.read_model(Path(prepared.folder) / "model.xml")
    batch_size = batch_size or _choose_batch_size(prepared)
    network.reshape([batch_size, *prepared.input_size, 3])
    compiled = core.compile_model(
        network,
        "CPU",
        {
            # Always said: the default differs between processors (f16 on arm64).
            # What int8 leaves over is little, and is computed exactly.
            "INFERENCE_PRECISION_HINT": openvino.Type.bf16
            if precision == "bf16"
            else openvino.Type.f32,
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": "1",
            "INFERENCE_NUM_THREADS": threads,
            # Pinned, the one-thread networks of two workers land on the same core.
            "ENABLE_CPU_PINNING": False,
        },
    )
    request = compiled.create_infer_request()

    def compute(batch: np.ndarray) -> np.ndarray:
        # Both shared, not copied: the caller waits, and copies what comes out before the next call.
        return np.asarray(request.infer([batch], share_inputs=True, share_outputs=True)[0])

    return _Engine(prepared, precision=precision, batch_size=batch_size, compute=compute)


def _choose_batch_size(prepared: PreparedModel) -> int:
    height, width = prepared.input_size
    dense = prepared.multiply_adds > _DENSE_MULTIPLY_ADDS * height * width
    pixels = _DENSE_BATCH_PIXELS if dense else _BATCH_PIXELS
    if prepared.precision == "int8":
        pixels = _INT8_BATCH_PIXELS
    return min(max(round(pixels / (height * width)), 1), _LARGEST_BATCH)


def _choose_precision(prepared: PreparedModel, capabilities: list[str]) -> str:
    if prepared.precision != "auto":
        return prepared.precision
    # A processor without bf16 can emulate it, several times slower than f32.
    return model_spec(prepared.name).fast_precision if "BF16" in capabilities else "f32"


def _openvino_precision(prepared: PreparedModel, core: Any) -> str:
    capabilities = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    precision = _choose_precision(prepared, capabilities)
    return "f32" if precision == "bf16" and not _computes_bf16(core) else precision


def _computes_bf16(core: Any) -> bool:
    """Ask whether the processor computes in bf16, be it emulated: without AVX-512 it does not.

    OpenVINO silently falls back to f32 there, which a compiled network tells: here one of one
    operation.
    """
    openvino = import_openvino()
    number = openvino.opset13.parameter([1], openvino.Type.f32)
    network = openvino.Model([openvino.opset13.relu(number)], [number])
    compiled = core.compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": openvino.Type.bf16})
    return bool(compiled.get_property("INFERENCE_PRECISION_HINT") == openvino.Type.bf16)


def _load_tensorflow(prepared: PreparedModel, *, threads: int, batch_size: int | None) -> Engine:
    folder = Path(prepared.folder)
    tensorflow = import_tensorflow(keras_home=folder.parents[1] / "keras")
    use_threads(tensorflow, threads)
    tensorflow.config.experimental.enable_op_determinism()
    import keras

    model = keras.saving.load_model(folder / "model.keras", compile=False)
    batch_size = batch_size or _TENSORFLOW_BATCH
    shape = [batch_size, *prepared.input_size, 3]
    pixels = tensorflow.TensorSpec(shape, tensorflow.uint8)
    inference = tensorflow.function(
        lambda pixels: model(pixels, training=False), input_signature=[pixels]
    )

    def compute(batch: np.ndarray) -> np.ndarray:
        return np.asarray(inference(tensorflow.constant(batch)).numpy())

    return _Engine(
        prepared,
        precision=executed_precision(prepared),
        batch_size=batch_size,
        compute=compute,
    )
