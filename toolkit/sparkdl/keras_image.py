"""``KerasImageFileTransformer``: a Keras model on image files that a function of the user loads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pyspark import cloudpickle, keyword_only
from pyspark.ml import Transformer
from pyspark.ml.param import Param, Params
from pyspark.sql.types import StringType

from toolkit.images.decode import UnreadableImage
from toolkit.sparkdl.bad_rows import CountsBadRows
from toolkit.sparkdl.cells import plain_cells
from toolkit.sparkdl.computing import Computation
from toolkit.sparkdl.keras_models import HasKerasModel, pickled, share_model
from toolkit.sparkdl.params import HasColumns, HasOutputMode, check_output, given, input_type
from toolkit.sparkdl.persistence import Attached, Attachment, FileAttachment, ObjectAttachment
from toolkit.sparkdl.results import Images, Results, Vectors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import pyarrow as pa
    from numpy.typing import NDArray
    from pyspark.sql import DataFrame
    from pyspark.sql.types import DataType

    from toolkit.sparkdl.keras_models import KerasModel, LoadedModel

__all__ = ["CanLoadImage", "KerasImageFileTransformer", "call_loader", "check_uris", "results_of"]

_CHANNELS = (1, 3, 4)  # of the image types of floats


def _to_function(value: Any) -> Callable[[str], Any]:
    if not callable(value):
        raise TypeError(f"{value!r} is no function of a URI")
    return value  # type: ignore[no-any-return]


class CanLoadImage(Params):
    """Parameter ``imageLoader``: a function from a URI to what the model takes."""

    imageLoader: Param[Callable[[str], Any]] = Param(
        Params._dummy(),
        "imageLoader",
        "Function from the URI of an image to an array of shape (1, height, width, channels), "
        "preprocessed as the model takes it.",
        typeConverter=_to_function,
    )

    def setImageLoader(self, value: Callable[[str], Any]) -> Any:
        """Set the function that loads an image."""
        return self._set(imageLoader=value)

    def getImageLoader(self) -> Callable[[str], Any]:
        """Return the function that loads an image."""
        return self.getOrDefault(self.imageLoader)


class KerasImageFileTransformer(
    Transformer, HasColumns, HasOutputMode, HasKerasModel, CanLoadImage, CountsBadRows, Attached
):
    """Applies a Keras model to images, each loaded from its URI by a function of yours.

    Parameters
    ----------
    inputCol
        Column of URIs (strings).
    outputCol
        Column to add.
    modelFile
        What ``model.save`` has written (``.keras``, ``.h5`` or ``.hdf5``), on the driver: a model
        of one input and one output. Its layers must be Keras' own: executors have no other.
    imageLoader
        Called on executors with a URI. Returns an array of shape (1, height, width, channels) or
        (height, width, channels), which goes into the model as it is, in float32. Where it raises,
        or gives nothing that fits the model, the row becomes null.
    outputMode
        ``vector``: what the model gives, flattened, as a vector of MLlib. ``image``: an image
        struct of floats (``CV_32FC1``, ``CV_32FC3`` or ``CV_32FC4``), channels as the model gives
        them.

    Raises
    ------
    TypeError
        A parameter has a value that there is not.
    IllegalArgumentException
        By ``transform``: the input column is missing or no column of strings, or the output column
        exists.
    ValueError
        By ``transform``: the model file can't be used, ``outputMode`` is ``image`` and the model
        gives none, or the loader can't be pickled.
    """

    attachments: ClassVar[Mapping[str, Attachment]] = {
        "modelFile": FileAttachment(),
        "imageLoader": ObjectAttachment(),
        "kerasFitParams": ObjectAttachment(),
    }

    @keyword_only
    def __init__(
        self,
        *,
        inputCol: str | None = None,
        outputCol: str | None = None,
        modelFile: str | None = None,
        imageLoader: Callable[[str], Any] | None = None,
        outputMode: Literal["vector", "image"] = "vector",
    ) -> None:
        super().__init__()
        self._set(**given(self))

    @keyword_only
    def setParams(
        self,
        *,
        inputCol: str | None = None,
        outputCol: str | None = None,
        modelFile: str | None = None,
        imageLoader: Callable[[str], Any] | None = None,
        outputMode: Literal["vector", "image"] = "vector",
    ) -> KerasImageFileTransformer:
        """Set those parameters that are given."""
        self._set(**given(self))
        return self

    def _transform(self, dataset: DataFrame) -> DataFrame:
        compute = self._computation(dataset).function()
        return dataset.withColumn(self.getOutputCol(), compute(dataset[self.getInputCol()]))

    def _computation(self, dataset: DataFrame) -> Computation:
        """Check the columns and the parameters, and return what the executors compute."""
        check_uris(dataset, self.getInputCol())
        check_output(dataset, self.getOutputCol())
        spark = dataset.sparkSession
        model = share_model(spark, self.getModelFile())
        return Computation(
            _ImageFiles(model, pickled(self.getImageLoader(), "The imageLoader")),
            results_of(model, self.getOutputMode(), self.getModelFile()),
            self._bad.counter(spark),
        )


def check_uris(dataset: DataFrame, name: str) -> None:
    """Refuse a column that can hold no URIs.

    Raises
    ------
    IllegalArgumentException
        There is no such column, or it is no column of strings.
    """
    input_type(dataset, name, expected="URIs (strings)", fits=_is_string)


def results_of(model: KerasModel, mode: str, file: str) -> Results:
    """Return the kind of column that a model's results become.

    Raises
    ------
    ValueError
        They are to be images, and are none.
    """
    if mode == "vector":
        return Vectors()
    shape = model.output_shape
    if len(shape) != 3 or shape[-1] not in _CHANNELS:  # noqa: PLR2004 - height, width, channels
        raise ValueError(
            f"outputMode 'image' needs results of shape (height, width, 1, 3 or 4), "
            f"but the model of {file} gives {shape}"
        )
    return Images()


def call_loader(loader: Callable[[str], Any], uri: str) -> Any:
    """Return what a user's function makes of an image.

    Raises
    ------
    UnreadableImage
        It raises, or returns nothing.
    """
    try:
        loaded = loader(uri)
    except Exception as exc:
        raise UnreadableImage(f"the loader raised {type(exc).__name__}: {exc}") from exc
    if loaded is None:
        raise UnreadableImage("the loader returned None")
    return loaded


@dataclass(frozen=True)
class _ImageFiles:
    """Loads images by a pickled function, and computes what a model makes of them.

    The pickle, not the function: two pickles can be compared, so that a worker loads both once.
    """

    model: KerasModel
    loader: bytes

    def load(self) -> _LoadedImageFiles:
        return _LoadedImageFiles(self.model.load(), cloudpickle.loads(self.loader))


class _LoadedImageFiles:
    def __init__(self, model: LoadedModel, loader: Callable[[str], Any]) -> None:
        self.batch_size = model.batch_size
        self.compute = model.compute
        self._model = model
        self._loader = loader

    def cells(self, column: pa.Array) -> Iterator[str | None]:
        return plain_cells(column)

    def read(self, cell: str) -> NDArray[Any]:
        return self._model.fit_to_input(call_loader(self._loader, cell), np.float32)


def _is_string(kind: DataType) -> bool:
    return isinstance(kind, StringType)
