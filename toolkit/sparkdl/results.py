"""What a stage computed, as a column of Spark: vectors, classes, arrays, numbers or images."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa
from pyspark.ml.linalg import VectorUDT
from pyspark.sql.pandas.types import to_arrow_type
from pyspark.sql.types import (
    ArrayType,
    DataType,
    FloatType,
    StringType,
    StructField,
    StructType,
)

from toolkit.models import top_classes
from toolkit.sparkdl.image.rows import image_row
from toolkit.sparkdl.image.schema import ImageSchema

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["Classes", "Images", "Results", "Tensors", "Vectors"]

_IMAGE_DIMENSIONS = 3
_DENSE = 1  # VectorUDT's `type` of a dense vector; 0 is a sparse one


class Results(Protocol):
    """A kind of column; picklable."""

    @property
    def data_type(self) -> DataType:
        """Its type in Spark."""

    def column(self, results: Sequence[NDArray[np.float32] | None]) -> pa.Array:
        """Make a piece of the column: one cell a result, null for None.

        Parameters
        ----------
        results
            What the network gave for each row: arrays of shape (d,), or of any shape.
        """


@dataclass(frozen=True)
class Vectors:
    """Dense vectors of MLlib."""

    @property
    def data_type(self) -> DataType:
        """Its type in Spark."""
        return VectorUDT()

    def column(self, results: Sequence[NDArray[np.float32] | None]) -> pa.Array:
        """Make a piece of the column."""
        kind = to_arrow_type(VectorUDT())
        count = len(results)
        return pa.StructArray.from_arrays(
            [
                pa.array(np.full(count, _DENSE, np.int8)),
                pa.nulls(count, kind.field("size").type),
                pa.nulls(count, kind.field("indices").type),
                _lists(results, kind.field("values").type),
            ],
            fields=list(kind),
            mask=_missing(results),
        )


@dataclass(frozen=True)
class Tensors:
    """Numbers, or arrays of them, or arrays of arrays, of one type.

    Parameters
    ----------
    element
        Type of the numbers.
    depth
        How many arrays lie in each other: dimensions of a result. A result of more is flattened.
    """

    element: DataType
    depth: int

    @property
    def data_type(self) -> DataType:
        """Its type in Spark."""
        kind = self.element
        for _ in range(self.depth):
            kind = ArrayType(kind, containsNull=False)
        return kind

    def column(self, results: Sequence[NDArray[Any] | None]) -> pa.Array:
        """Make a piece of the column."""
        kind = to_arrow_type(self.data_type)
        number = to_arrow_type(self.element)
        dtype = number.to_pandas_dtype()
        if not self.depth:
            numbers = np.array([0 if each is None else each for each in results], dtype)
            return pa.array(numbers, number, mask=np.array([each is None for each in results]))
        if self.depth == 1:
            results = [None if each is None else each.reshape(-1) for each in results]
        there = [each for each in results if each is not None]
        flat = [each.reshape(-1).astype(dtype, copy=False) for each in there]
        column = pa.array(np.concatenate([*flat, np.empty(0, dtype)]), number)
        for level in range(self.depth - 1, 0, -1):
            # As many lists as the sides before say, each as long as the side at this level.
            lengths = [np.full(math.prod(each.shape[:level]), each.shape[level]) for each in there]
            offsets = _offsets(np.concatenate([*lengths, np.empty(0, np.int64)]))
            column = pa.ListArray.from_arrays(offsets, column, type=_at_level(kind, level))
        lengths_of_all = [0 if each is None else each.shape[0] for each in results]
        return pa.ListArray.from_arrays(
            _offsets(lengths_of_all), column, type=kind, mask=_missing(results)
        )


@dataclass(frozen=True)
class Classes:
    """The most probable classes of ImageNet, as SparkDL decodes predictions.

    Parameters
    ----------
    count
        How many, 1 to 1,000.
    """

    count: int

    @property
    def data_type(self) -> DataType:
        """Its type in Spark."""
        return ArrayType(
            StructType(
                [
                    StructField("class", StringType(), nullable=False),
                    StructField("description", StringType(), nullable=False),
                    StructField("probability", FloatType(), nullable=False),
                ]
            )
        )

    def column(self, results: Sequence[NDArray[np.float32] | None]) -> pa.Array:
        """Make a piece of the column."""
        names = ("class", "description", "probability")
        cells = [
            None
            if result is None
            else [
                dict(zip(names, prediction, strict=True))
                for prediction in top_classes(result, count=self.count)
            ]
            for result in results
        ]
        return pa.array(cells, to_arrow_type(self.data_type))


@dataclass(frozen=True)
class Images:
    """Images of floats (``CV_32FC1``, ``CV_32FC3`` or ``CV_32FC4``), channels as the network's."""

    @property
    def data_type(self) -> DataType:
        """Its type in Spark."""
        return ImageSchema.columnSchema

    def column(self, results: Sequence[NDArray[np.float32] | None]) -> pa.Array:
        """Make a piece of the column.

        Raises
        ------
        ValueError
            The results are no images: not of shape (height, width, channels).
        """
        return pa.array([_image(result) for result in results], to_arrow_type(self.data_type))


def _image(result: NDArray[np.float32] | None) -> dict[str, Any] | None:
    if result is None:
        return None
    if result.ndim != _IMAGE_DIMENSIONS:
        raise ValueError(f"outputMode 'image' needs results of 3 dimensions, not {result.shape}")
    return image_row(np.asarray(result, np.float32)).asDict()


def _missing(results: Sequence[NDArray[np.float32] | None]) -> pa.Array:
    return pa.array([result is None for result in results], pa.bool_())


def _lists(results: Sequence[NDArray[np.float32] | None], kind: pa.DataType) -> pa.Array:
    """Make lists of numbers, an empty one for None, without a Python object a number."""
    flat = [np.empty(0, np.float32) if each is None else each.reshape(-1) for each in results]
    values = pa.array(np.concatenate([*flat, np.empty(0, np.float32)]))
    return pa.ListArray.from_arrays(
        _offsets([len(each) for each in flat]), values.cast(kind.value_type), type=kind
    )


def _offsets(lengths: Sequence[int] | NDArray[np.int64]) -> pa.Array:
    """Return where lists of these lengths begin in their values, and where the last one ends."""
    offsets = np.zeros(len(lengths) + 1, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    return pa.array(offsets)


def _at_level(kind: pa.DataType, level: int) -> pa.DataType:
    """Return the type of the lists inside so many lists."""
    for _ in range(level):
        kind = kind.value_type
    return kind
