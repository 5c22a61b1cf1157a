"""Takes the cells of a column out of Arrow: image structs, files, or plain values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from toolkit.images.decode import UnreadableImage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

__all__ = [
    "ImageCell",
    "array_of",
    "image_cells",
    "list_cells",
    "plain_cells",
    "vector_cells",
]


class ImageCell(NamedTuple):
    """An image struct: sides in pixels, channels, OpenCV type, and values row by row, BGR."""

    height: int
    width: int
    n_channels: int
    mode: int
    data: Any


def image_cells(column: pa.StructArray) -> Iterator[ImageCell | None]:
    """Yield image structs; their data are views into the column, not copies."""
    fields = [column.field(name) for name in ("height", "width", "nChannels", "mode")]
    numbers = zip(*(each.to_pylist() for each in fields), strict=True)
    there = column.is_valid()
    for valid, (height, width, channels, mode), data in zip(
        there, numbers, column.field("data"), strict=True
    ):
        if not valid.as_py() or None in {height, width, channels, mode} or not data.is_valid:
            yield None
        else:
            yield ImageCell(height, width, channels, mode, data.as_buffer())


def plain_cells(column: pa.Array) -> Iterator[Any]:
    """Yield values as Python has them: strings, contents of files, numbers."""
    for cell in column:
        yield cell.as_py()


def list_cells(column: pa.ListArray) -> Iterator[pa.Array | None]:
    """Yield arrays of numbers, or of arrays, as Arrow has them: see `array_of`."""
    for cell in column:
        yield cell.values


def array_of(values: pa.Array) -> NDArray[Any]:
    """Return the numbers of a cell, of arrays in arrays to any depth.

    Raises
    ------
    UnreadableImage
        Arrays side by side have different lengths, or there is a null among them.
    """
    shape = [len(values)]
    while pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
        if values.null_count:
            raise UnreadableImage("a null in an array")
        lengths = set(values.value_lengths().to_pylist()) or {0}
        if len(lengths) > 1:
            raise UnreadableImage("arrays of different lengths in an array")
        shape.append(lengths.pop())
        values = values.flatten()
    if values.null_count:
        raise UnreadableImage("a null in an array")
    return np.asarray(values.to_numpy(zero_copy_only=False)).reshape(shape)


def vector_cells(column: pa.StructArray) -> Iterator[NDArray[np.float64] | None]:
    """Yield vectors of MLlib, dense or sparse, in full."""
    fields = [column.field(name) for name in ("size", "indices", "values")]
    for valid, size, indices, values in zip(column.is_valid(), *fields, strict=True):
        if not valid.as_py():
            yield None
            continue
        numbers = values.values.to_numpy(zero_copy_only=False)
        if indices.is_valid:
            full = np.zeros(size.as_py())
            full[indices.values.to_numpy(zero_copy_only=False)] = numbers
            numbers = full
        yield numbers
