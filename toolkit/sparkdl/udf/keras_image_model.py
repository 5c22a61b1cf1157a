"""``registerKerasImageUDF``: a Keras model as a function of SQL on image structs."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from pyspark import cloudpickle
from pyspark.sql import SparkSession
from pyspark.sql.types import FloatType

from toolkit.errors import RequestError
from toolkit.images.decode import UnreadableImage
from toolkit.sparkdl.bad_rows import BadRows
from toolkit.sparkdl.cells import image_cells
from toolkit.sparkdl.computing import Computation
from toolkit.sparkdl.image.pixels import stored_pixels
from toolkit.sparkdl.image.rows import pil_image, swap_channels
from toolkit.sparkdl.keras_image import call_loader
from toolkit.sparkdl.keras_models import import_keras, pickled, share_model
from toolkit.sparkdl.results import Tensors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from toolkit.sparkdl.cells import ImageCell
    from toolkit.sparkdl.keras_models import KerasModel, LoadedModel

__all__ = ["registerKerasImageUDF"]

_AXES = 3  # height, width, channels


def registerKerasImageUDF(
    udf_name: str,
    keras_model_or_file_path: Any,
    preprocessor: Callable[[str], Any] | None = None,
) -> Any:
    """Register a Keras model as a function of SQL, in the active session.

    ``SELECT udf_name(image) FROM images`` gives for an image struct what the model gives,
    flattened: ``array<float>``. An image that does not fit the model's input becomes null. None is
    resized: let the preprocessor do that, or ``imageIO.createResizeImageUDF``.

    Parameters
    ----------
    udf_name
        Name of the function; one that exists is replaced.
    keras_model_or_file_path
        A model of Keras 3, or a file that its ``save`` has written (``.keras``, ``.h5`` or
        ``.hdf5``): of one input of shape (height, width, channels) and one output. Its layers must
        be Keras' own: executors have no other.
    preprocessor
        Called on executors with the path of a PNG of the image, which is deleted afterwards.
        Returns an array of shape (height, width, channels), or (1, height, width, channels), which
        goes into the model as it is, in float32. Where it raises, the row becomes null. Not given:
        the values of the struct go in, in the order red, green, blue, alpha, in float32.

    Returns
    -------
    UserDefinedFunction
        The function, for columns of a data frame: ``frame.select(function("image"))``. Its
        ``badRows()`` tells how many images it could not compute, in all queries so far.

    Raises
    ------
    RequestError
        There is no session.
    TypeError
        The model is neither a model nor a path, or the preprocessor is no function.
    ValueError
        The model can't be used, or the preprocessor can't be pickled.
    """
    spark = SparkSession.getActiveSession()
    if spark is None:
        raise RequestError(
            "There is no Spark session to register the function in.",
            remedy="Start one before: SparkSession.builder.getOrCreate().",
        )
    if preprocessor is not None and not callable(preprocessor):
        raise TypeError(f"{preprocessor!r} is no function of a file's path")
    model = _share(spark, keras_model_or_file_path)
    if len(model.input_shape) != _AXES:
        raise ValueError(
            f"The model for {udf_name} takes the shape {model.input_shape}, "
            "not (height, width, channels)"
        )
    program = _ImageStructs(
        model, None if preprocessor is None else pickled(preprocessor, "The preprocessor")
    )
    bad = BadRows()
    function: Any = Computation(program, Tensors(FloatType(), 1), bad.counter(spark)).function()
    registered: Any = spark.udf.register(udf_name, function)
    registered.badRows = lambda: bad.count
    return registered


def _share(spark: SparkSession, model: Any) -> KerasModel:
    if isinstance(model, (str, Path)):
        return share_model(spark, model)
    if not isinstance(model, import_keras().Model):
        raise TypeError(f"{model!r} is neither a Keras model nor the path of its file")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.keras"
        model.save(file)
        return share_model(spark, file)


@dataclass(frozen=True)
class _ImageStructs:
    """Computes what a model makes of image structs, or of what a pickled function makes of them."""

    model: KerasModel
    preprocessor: bytes | None

    def load(self) -> _LoadedImageStructs:
        model = self.model.load()
        if self.preprocessor is None:
            return _Direct(model)
        return _Preprocessed(model, cloudpickle.loads(self.preprocessor))


class _LoadedImageStructs:
    def __init__(self, model: LoadedModel) -> None:
        self.batch_size = model.batch_size
        self.compute = model.compute
        self._model = model

    def cells(self, column: pa.Array) -> Iterator[ImageCell | None]:
        if not pa.types.is_struct(column.type):
            raise TypeError(f"the function takes image structs, not {column.type}")
        return image_cells(column)

    def read(self, cell: ImageCell) -> NDArray[Any]:
        raise NotImplementedError


class _Direct(_LoadedImageStructs):
    def read(self, cell: ImageCell) -> NDArray[Any]:
        return self._model.fit_to_input(swap_channels(stored_pixels(*cell)), np.float32)


class _Preprocessed(_LoadedImageStructs):
    def __init__(self, model: LoadedModel, preprocessor: Callable[[str], Any]) -> None:
        super().__init__(model)
        self._preprocessor = preprocessor

    def read(self, cell: ImageCell) -> NDArray[Any]:
        if stored_pixels(*cell).dtype != np.uint8:
            raise UnreadableImage("an image of floats cannot become a PNG")
        with tempfile.NamedTemporaryFile(suffix=".png") as file:
            pil_image(cell.height, cell.width, cell.mode, cell.data).save(file, "PNG")
            file.flush()
            return self._model.fit_to_input(call_loader(self._preprocessor, file.name), np.float32)
