"""``TFImageTransformer``: applies a function of TensorFlow to images, each in its own size."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pyspark import keyword_only
from pyspark.errors import IllegalArgumentException
from pyspark.ml import Transformer
from pyspark.ml.param import Param, Params

from toolkit.images.decode import UnreadableImage
from toolkit.sparkdl.bad_rows import CountsBadRows
from toolkit.sparkdl.cells import ImageCell, image_cells
from toolkit.sparkdl.computing import Computation
from toolkit.sparkdl.image.pixels import stored_pixels
from toolkit.sparkdl.image.rows import swap_channels
from toolkit.sparkdl.params import (
    HasColumns,
    HasOutputMode,
    check_output,
    given,
    input_type,
    is_image,
    one_of,
    optional,
)
from toolkit.sparkdl.persistence import Attached, Attachment
from toolkit.sparkdl.results import Images, Results, Vectors
from toolkit.sparkdl.tensorflow_runtime import driver_tensorflow
from toolkit.sparkdl.tf_graph import (
    GraphAttachment,
    LoadedGraph,
    SharedGraph,
    Tensor,
    TFInputGraph,
    Uncomputable,
    share_graph,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import pyarrow as pa
    from numpy.typing import NDArray
    from pyspark.ml.util import MLWriter
    from pyspark.sql import DataFrame

__all__ = ["TFImageTransformer"]

ChannelOrder = Literal["RGB", "BGR", "L"]

_IMAGE_AXES = 4  # batch, height, width, channels
_FLOATS = frozenset({"float16", "bfloat16", "float32", "float64"})
_NUMBERS = _FLOATS | {"bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64"}
_IMAGE_CHANNELS = (1, 3, 4)  # of the image types of floats
# Images that are computed at once: as many as have this size, in float32.
_BYTES = 16 << 20
_MOST_IMAGES = 256
# Where any size is allowed, so many at most wait for each other: a photo may have 36 MB.
_IMAGES_OF_ANY_SIZE = 16


def _to_tensor_name(value: Any) -> str:
    name = value if isinstance(value, str) else getattr(value, "name", None)
    if not isinstance(name, str):
        raise TypeError(f"{value!r} is neither a tensor nor the name of one")
    return name


class _Unsigned:
    """A function that does not say how many channels it takes: it is a graph for each number."""

    def __init__(self, function: Any) -> None:
        self._function = function
        self._graphs: dict[int, TFInputGraph] = {}

    def taking(self, channels: int) -> TFInputGraph:
        """Return the graph for images of any size with so many channels."""
        if channels not in self._graphs:
            tf = driver_tensorflow()
            images = tf.TensorSpec([None, None, None, channels], tf.float32)
            self._graphs[channels] = TFInputGraph.fromFunction(self._function, [images])
        return self._graphs[channels]


def _to_graph(value: Any) -> TFInputGraph | _Unsigned:
    """Return a graph, in whatever form it is given."""
    if isinstance(value, TFInputGraph | _Unsigned):
        return value
    if isinstance(value, str | Path):
        return TFInputGraph.fromSavedModel(value)
    keras = sys.modules.get("keras")  # whoever has a model of Keras has imported it
    if keras and isinstance(value, keras.Model):
        return TFInputGraph.fromKeras(value)
    if not callable(value):
        raise TypeError(
            f"{type(value).__name__} is no graph of TensorFlow 2: neither a TFInputGraph, the "
            "folder of a SavedModel, a function nor a model of Keras"
        )
    experimental = driver_tensorflow().types.experimental
    if isinstance(value, experimental.ConcreteFunction):
        return TFInputGraph.fromFunction(value)
    if isinstance(value, experimental.PolymorphicFunction) and value.input_signature is not None:
        return TFInputGraph.fromFunction(value)
    return _Unsigned(value)


class TFImageTransformer(Transformer, HasColumns, HasOutputMode, CountsBadRows, Attached):
    """Applies a function of TensorFlow to a column of images.

    Images go in as float32 of shape (batch, height, width, channels), values as they are (0 to 255
    for those of 8 bits), in their own size: images of one size together. Gray images have one
    channel, those with transparency four, alpha last. What does not fit the function becomes null.

    Parameters
    ----------
    channelOrder
        What the function takes: ``RGB``, ``BGR``, or ``L`` for gray images only.
    inputCol
        Column of image structs (`ImageSchema`), of 8 bits or floats.
    outputCol
        Column to add.
    graph
        A `TFInputGraph`; the folder of a SavedModel; a ``tf.function`` or what that takes; a
        concrete function; or a model of Keras. What its variables are now is what is computed. A
        function without a signature becomes a graph when the stage is used or saved, for images of
        any size with three channels, or one if `channelOrder` is ``L`` by then; what its variables
        are at the first time is what is computed.
    inputTensor, outputTensor
        Names of the input and the output, as `TFTransformer` takes them; not set: the only one.
    outputMode
        ``vector``: the output, flattened, as a vector of MLlib. ``image``: an image struct of
        floats (``CV_32FC1``, ``CV_32FC3`` or ``CV_32FC4``), channels as the function gives them.

    Raises
    ------
    TypeError, ValueError
        A parameter has a value that there is not, or the graph can't be used: see `TFInputGraph`.
    IllegalArgumentException
        By ``transform``: a parameter is missing, the input column is missing or no column of
        images, the output column exists, or the graph does not take or give images.
    """

    attachments: ClassVar[Mapping[str, Attachment]] = {"graph": GraphAttachment()}

    channelOrder: Param[str] = Param(
        Params._dummy(),
        "channelOrder",
        "Order of the channels that the graph takes: RGB, BGR or L.",
        typeConverter=one_of(["RGB", "BGR", "L"]),
    )
    graph: Param[TFInputGraph | _Unsigned] = Param(
        Params._dummy(), "graph", "The function of TensorFlow.", typeConverter=_to_graph
    )
    inputTensor: Param[str] = Param(
        Params._dummy(),
        "inputTensor",
        "Name of the input of the graph; not set: the only one.",
        typeConverter=_to_tensor_name,
    )
    outputTensor: Param[str] = Param(
        Params._dummy(),
        "outputTensor",
        "Name of the output of the graph; not set: the only one.",
        typeConverter=_to_tensor_name,
    )

    @keyword_only
    def __init__(
        self,
        *,
        channelOrder: ChannelOrder | None = None,
        inputCol: str | None = None,
        outputCol: str | None = None,
        graph: Any = None,
        inputTensor: Any = None,
        outputTensor: Any = None,
        outputMode: Literal["vector", "image"] = "vector",
    ) -> None:
        super().__init__()
        self._set(**given(self))

    @keyword_only
    def setParams(
        self,
        *,
        channelOrder: ChannelOrder | None = None,
        inputCol: str | None = None,
        outputCol: str | None = None,
        graph: Any = None,
        inputTensor: Any = None,
        outputTensor: Any = None,
        outputMode: Literal["vector", "image"] = "vector",
    ) -> TFImageTransformer:
        """Set those parameters that are given."""
        self._set(**given(self))
        return self

    def setChannelOrder(self, value: ChannelOrder) -> TFImageTransformer:
        """Set the order of the channels that the graph takes."""
        self._set(channelOrder=value)
        return self

    def getChannelOrder(self) -> str:
        """Return the order of the channels that the graph takes."""
        return str(self.getOrDefault(self.channelOrder))

    def setGraph(self, value: Any) -> TFImageTransformer:
        """Set the graph, in any form that the class takes."""
        self._set(graph=value)
        return self

    def getGraph(self) -> TFInputGraph:
        """Return the graph, for images of the channels that the order means."""
        graph = self.getOrDefault(self.graph)
        return graph if isinstance(graph, TFInputGraph) else graph.taking(self._channels())

    def setInputTensor(self, value: Any) -> TFImageTransformer:
        """Set the input: a name, or something that has one."""
        self._set(inputTensor=value)
        return self

    def getInputTensor(self) -> str | None:
        """Return the name of the input, None for the only one."""
        return optional(self, self.inputTensor)

    def setOutputTensor(self, value: Any) -> TFImageTransformer:
        """Set the output: a name, or something that has one."""
        self._set(outputTensor=value)
        return self

    def getOutputTensor(self) -> str | None:
        """Return the name of the output, None for the only one."""
        return optional(self, self.outputTensor)

    def write(self) -> MLWriter:
        """Return what saves the stage: ``write().overwrite().save(path)``."""
        if not self.isDefined(self.graph):
            return super().write()
        return super(TFImageTransformer, self.copy({self.graph: self.getGraph()})).write()

    def _channels(self) -> int:
        return 1 if optional(self, self.channelOrder) == "L" else 3

    def _transform(self, dataset: DataFrame) -> DataFrame:
        compute = self._computation(dataset).function()
        return dataset.withColumn(self.getOutputCol(), compute(dataset[self.getInputCol()]))

    def _computation(self, dataset: DataFrame) -> Computation:
        """Check the columns and the parameters, and return what the executors compute."""
        needed: tuple[Param[Any], ...] = (
            self.channelOrder,
            self.graph,
            self.inputCol,
            self.outputCol,
        )
        for param in needed:
            if optional(self, param) is None:
                raise IllegalArgumentException(f"TFImageTransformer needs {param.name}.")
        input_type(
            dataset,
            self.getInputCol(),
            expected="images (structs of ImageSchema)",
            fits=is_image,
        )
        check_output(dataset, self.getOutputCol())
        graph = self.getGraph()
        taken = _image_input(graph, self.getInputTensor())
        output = _image_output(graph, self.getOutputTensor())
        spark = dataset.sparkSession
        return Computation(
            _OnImages(share_graph(spark, graph), taken, output.name, self.getChannelOrder()),
            _results(output, self.getOutputMode()),
            self._bad.counter(spark),
        )


@dataclass(frozen=True)
class _OnImages:
    """What the stage does with the images of its column."""

    graph: SharedGraph
    input: Tensor
    output: str
    order: str

    def load(self) -> _Loaded:
        """Load the graph, on an executor."""
        return _Loaded(self, self.graph.load())


class _Loaded:
    def __init__(self, program: _OnImages, graph: LoadedGraph) -> None:
        self._program = program
        self._graph = graph
        self._sides = (program.input.shape or (None,) * _IMAGE_AXES)[1:]
        self._possible: dict[tuple[int, ...], bool] = {}
        sized = [side for side in self._sides if side is not None]
        if graph.batch:
            self.batch_size = graph.batch
        elif len(sized) < len(self._sides):
            self.batch_size = _IMAGES_OF_ANY_SIZE
        else:
            self.batch_size = _images_at_once(sized)

    def cells(self, column: pa.Array) -> Iterator[Any]:
        return image_cells(column)

    def read(self, cell: ImageCell) -> NDArray[Any]:
        pixels = stored_pixels(*cell)
        if self._program.order == "L" and pixels.shape[2] != 1:
            raise UnreadableImage(f"{pixels.shape[2]} channels, but channelOrder is L")
        for side, expected in zip(pixels.shape, self._sides, strict=True):
            if expected not in {None, side}:
                sizes = " x ".join(str(each) for each in pixels.shape)
                raise UnreadableImage(f"{sizes} values do not fit the input {self._program.input}")
        if None in self._sides and not self._can_compute(pixels):
            raise UnreadableImage(f"the graph cannot compute the shape {pixels.shape}")
        return pixels

    def _can_compute(self, pixels: NDArray[Any]) -> bool:
        """Tell whether a shape of a free input leaves something to every operation: try it once."""
        if pixels.shape not in self._possible:
            try:
                self._compute(pixels[np.newaxis])
            except Uncomputable:
                self._possible[pixels.shape] = False
            else:
                self._possible[pixels.shape] = True
        return self._possible[pixels.shape]

    def compute(self, batch: NDArray[Any]) -> NDArray[Any]:
        at_once = self._graph.batch or _images_at_once(batch.shape[1:])
        pieces = [
            self._compute(batch[start : start + at_once]) for start in range(0, len(batch), at_once)
        ]
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def _compute(self, images: NDArray[Any]) -> NDArray[Any]:
        ordered = swap_channels(images) if self._program.order == "RGB" else images
        output = self._program.output
        return self._graph.compute({self._program.input.name: ordered}, [output])[output]


def _images_at_once(sides: list[int] | tuple[int, ...]) -> int:
    size = math.prod(sides) * np.dtype(np.float32).itemsize
    return min(max(_BYTES // size, 1), _MOST_IMAGES)


def _image_input(graph: TFInputGraph, name: str | None) -> Tensor:
    """Return the input that takes images.

    Raises
    ------
    IllegalArgumentException
        There is none, or others are to be given, too.
    """
    tensor = graph.input(name)
    if len(graph.inputs) > 1:
        known = ", ".join(str(each) for each in graph.inputs)
        raise IllegalArgumentException(f"The graph takes more than images: {known}")
    if tensor.dtype not in _FLOATS:
        raise IllegalArgumentException(
            f"The input {tensor} does not take float32: cast in the function."
        )
    if tensor.shape is not None and len(tensor.shape) != _IMAGE_AXES:
        raise IllegalArgumentException(
            f"The input {tensor} does not take images: [batch, height, width, channels]."
        )
    return tensor


def _image_output(graph: TFInputGraph, name: str | None) -> Tensor:
    """Return the output to compute.

    Raises
    ------
    IllegalArgumentException
        There is none of this name, several and no name, or it has no numbers.
    """
    tensor = graph.output(name)
    if tensor.shape == () or tensor.dtype not in _NUMBERS:
        raise IllegalArgumentException(f"The output {tensor} has no row of numbers for an image.")
    return tensor


def _results(output: Tensor, mode: str) -> Results:
    """Return what kind of column the output becomes.

    Raises
    ------
    IllegalArgumentException
        It is to be images, and is none.
    """
    if mode == "vector":
        return Vectors()
    shape = output.shape
    if shape is not None and (
        len(shape) != _IMAGE_AXES or shape[-1] not in {None, *_IMAGE_CHANNELS}
    ):
        raise IllegalArgumentException(
            f"outputMode 'image' needs an output [batch, height, width, 1, 3 or 4], not {output}"
        )
    return Images()
