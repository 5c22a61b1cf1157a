"""Keras model files as stages run them: checked on the driver, loaded once in a worker process."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from pyspark import cloudpickle
from pyspark.ml.param import Param, Params, TypeConverters

from toolkit.images.decode import UnreadableImage
from toolkit.sparkdl.spark_files import SharedFile, keep, share_file
from toolkit.sparkdl.tensorflow_runtime import driver_tensorflow, executor_tensorflow

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pyspark.sql import SparkSession

__all__ = [
    "HasKerasModel",
    "KerasModel",
    "LoadedModel",
    "fit_to_shape",
    "import_keras",
    "load_keras_model",
    "pickled",
    "share_model",
]

_ENDINGS = (".keras", ".h5", ".hdf5")
_BATCH_SIZE = 32  # as Keras' own `predict`
_MODELS_LOADED = 4
_MODELS_DESCRIBED = 64

_GIVEN_BY_THE_ESTIMATOR = frozenset({"x", "y"})


def _to_fit_params(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"{value!r} is no dict of arguments of Keras' fit")
    if taken := sorted(_GIVEN_BY_THE_ESTIMATOR & value.keys()):
        raise TypeError(
            f"{', '.join(taken)} cannot be given: images and labels are the estimator's"
        )
    return dict(value)


class HasKerasModel(Params):
    """Parameters ``modelFile`` and ``kerasFitParams``, with their setters."""

    modelFile: Param[str] = Param(
        Params._dummy(),
        "modelFile",
        "File of a Keras model, on the driver: .keras, .h5 or .hdf5.",
        typeConverter=TypeConverters.toString,
    )
    kerasFitParams: Param[dict[str, Any]] = Param(
        Params._dummy(),
        "kerasFitParams",
        "Arguments of Keras' fit, but for x and y.",
        typeConverter=_to_fit_params,
    )

    def __init__(self) -> None:
        super().__init__()
        self._setDefault(kerasFitParams={})

    def setModelFile(self, value: str) -> Any:
        """Set the file of the Keras model."""
        return self._set(modelFile=value)

    def getModelFile(self) -> str:
        """Return the file of the Keras model."""
        return str(self.getOrDefault(self.modelFile))

    def setKerasFitParams(self, value: dict[str, Any]) -> Any:
        """Set the arguments of Keras' fit."""
        return self._set(kerasFitParams=value)

    def getKerasFitParams(self) -> dict[str, Any]:
        """Return the arguments of Keras' fit."""
        return self.getOrDefault(self.kerasFitParams)


@dataclass(frozen=True)
class KerasModel:
    """A Keras model of one input and one output, which every executor can read.

    Small, picklable and hashable.

    Parameters
    ----------
    file
        The model file.
    input_shape, output_shape
        Of one row, without the axis of the batch; None where any length will do.
    dtype
        Name of the type that the input takes.
    """

    file: SharedFile
    input_shape: tuple[int | None, ...]
    output_shape: tuple[int | None, ...]
    dtype: str

    def load(self) -> LoadedModel:
        """Return the model in this worker process, loaded once."""
        return _loaded(self)


class LoadedModel:
    """A model in a worker process.

    Parameters
    ----------
    model
        From `share_model`.
    """

    batch_size = _BATCH_SIZE

    def __init__(self, model: KerasModel) -> None:
        tensorflow = executor_tensorflow()
        network = load_keras_model(model.file.path())
        # Other floats of the network's, as bfloat16, NumPy may not know.
        integers = np.issubdtype(model.dtype, np.integer) if "float" not in model.dtype else False
        self.dtype = np.dtype(model.dtype if integers else np.float32)
        self._shape = model.input_shape
        self._network = network
        self._possible: dict[tuple[int, ...], bool] = {}
        self._tensor = tensorflow.constant

        def inference(batch: Any) -> Any:
            (result,) = tensorflow.nest.flatten(
                network(tensorflow.cast(batch, model.dtype), training=False)
            )
            return tensorflow.cast(result, tensorflow.float32)

        rows = tensorflow.TensorSpec([None, *model.input_shape], self.dtype)
        self._inference = tensorflow.function(inference, input_signature=[rows])

    def fit_to_input(self, values: Any, dtype: Any = None) -> NDArray[Any]:
        """Return values as one row of the model's input.

        Parameters
        ----------
        values : array_like
            Of the shape that the model takes; an axis of a batch of one before it is taken off.
        dtype
            Of the result; None for the model's.

        Raises
        ------
        UnreadableImage
            They have another shape, or are no numbers.
        """
        array = fit_to_shape(values, self._shape, self.dtype if dtype is None else dtype)
        if None in self._shape and not self._can_compute(array.shape):
            raise UnreadableImage(f"the model cannot compute the shape {array.shape}")
        return array

    def compute(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Compute what the model gives for rows, of shape (n, …)."""
        return np.asarray(self._inference(self._tensor(batch, self.dtype)).numpy())

    def _can_compute(self, shape: tuple[int, ...]) -> bool:
        """Tell whether a shape of a free input leaves something to every layer."""
        if shape not in self._possible:
            try:
                self._network.compute_output_shape((1, *shape))
            except Exception:  # noqa: BLE001 - each layer has its own
                self._possible[shape] = False
            else:
                self._possible[shape] = True
        return self._possible[shape]


def fit_to_shape(values: Any, shape: tuple[int | None, ...], dtype: Any) -> NDArray[Any]:
    """Return values as an array of a shape; an axis of a batch of one before it is taken off.

    Parameters
    ----------
    values : array_like
        Numbers.
    shape
        None where any length from 1 on will do.
    dtype
        Of the result.

    Raises
    ------
    UnreadableImage
        They have another shape, or are no numbers.
    """
    try:
        array = np.asarray(values, dtype)
    except (TypeError, ValueError) as exc:
        raise UnreadableImage(f"no array of numbers: {exc}") from exc
    if array.ndim == len(shape) + 1 and len(array) == 1:
        array = array[0]
    fits = array.ndim == len(shape) and all(
        found == wanted or (wanted is None and found > 0)
        for found, wanted in zip(array.shape, shape, strict=True)
    )
    if not fits:
        raise UnreadableImage(f"the shape {array.shape} does not fit the model's input, {shape}")
    return array


def share_model(spark: SparkSession, file: str | Path) -> KerasModel:
    """Check a model file, and give it to all executors.

    Parameters
    ----------
    spark
        The session.
    file
        On the driver: what `keras.Model.save` writes, ``.keras``, ``.h5`` or ``.hdf5``.

    Raises
    ------
    ValueError
        The file has another ending, is not there, is none that Keras reads, or its model has not
        one input of numbers, of a known shape, and one output.
    """
    path = Path(file)
    if path.suffix.lower() not in _ENDINGS:
        raise ValueError(f"{file} is no Keras model file: its name must end in {_listed(_ENDINGS)}")
    try:
        kept = keep(path.read_bytes(), suffix=path.suffix.lower())
    except OSError as exc:
        raise ValueError(f"The Keras model file {file} cannot be read: {exc.strerror}") from exc
    try:
        input_shape, output_shape, dtype = _describe(kept)
    except Exception as exc:  # Keras raises almost anything
        raise ValueError(f"The Keras model file {file} cannot be used: {exc}") from exc
    return KerasModel(share_file(spark, kept), input_shape, output_shape, dtype)


def import_keras() -> Any:
    """Import Keras on TensorFlow (seconds, and hundreds of MB), whose threads stay as they are."""
    driver_tensorflow()
    import keras

    return keras


def load_keras_model(file: Path) -> Any:
    """Load a model file as it was saved, without optimizer and loss."""
    return import_keras().saving.load_model(file, compile=False)


def pickled(value: Any, name: str) -> bytes:
    """Return what brings a function to the executors; the same function is the same bytes.

    Raises
    ------
    ValueError
        It cannot be pickled.
    """
    try:
        return cast("bytes", cloudpickle.dumps(value))  # type: ignore[no-untyped-call]
    except Exception as exc:  # what can't be pickled raises almost anything
        raise ValueError(f"{name} cannot be sent to the executors: {exc}") from exc


@lru_cache(maxsize=_MODELS_DESCRIBED)
def _describe(file: Path) -> tuple[tuple[int | None, ...], tuple[int | None, ...], str]:
    """Return shape of the input, shape of the output, and type of the input."""
    model = load_keras_model(file)
    inputs, outputs = (getattr(model, name, None) for name in ("inputs", "outputs"))
    if not inputs or not outputs:
        raise ValueError("the shape of its input is not known")
    if len(inputs) != 1 or len(outputs) != 1:
        raise ValueError(
            f"it has {len(inputs)} input(s) and {len(outputs)} output(s), instead of one of each"
        )
    if inputs[0].dtype == "string":
        raise ValueError("its input takes strings")
    return tuple(inputs[0].shape[1:]), tuple(outputs[0].shape[1:]), str(inputs[0].dtype)


@lru_cache(maxsize=_MODELS_LOADED)
def _loaded(model: KerasModel) -> LoadedModel:
    return LoadedModel(model)


def _listed(names: tuple[str, ...]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"
