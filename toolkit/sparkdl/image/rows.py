"""An image as a row of Spark's image column, as an array, and as a Pillow image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image
from pyspark.sql import Row
from pyspark.sql.types import BinaryType, IntegerType, StringType, StructField, StructType

from toolkit.images.decode import in_8_bits

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "COLUMN_SCHEMA",
    "OCV_TYPES",
    "UNDEFINED",
    "OcvType",
    "image_array",
    "image_row",
    "image_type",
    "pil_image",
    "pil_row",
    "swap_channels",
    "undecoded_row",
]


class OcvType(NamedTuple):
    """What the values of an image are, as OpenCV numbers it.

    Attributes
    ----------
    name
        OpenCV's name: bits, kind and channels of a pixel.
    ord
        OpenCV's number, which is the `mode` of an image.
    nChannels
        Channels of a pixel: 1 (gray), 3 (blue, green, red) or 4 (and alpha).
    dtype
        NumPy's name of the type of a value.
    """

    name: str
    ord: int
    nChannels: int
    dtype: str


OCV_TYPES = (
    OcvType("CV_8UC1", 0, 1, "uint8"),
    OcvType("CV_32FC1", 5, 1, "float32"),
    OcvType("CV_8UC3", 16, 3, "uint8"),
    OcvType("CV_32FC3", 21, 3, "float32"),
    OcvType("CV_8UC4", 24, 4, "uint8"),
    OcvType("CV_32FC4", 29, 4, "float32"),
)
"""The types of images that arrays turn into; Spark itself reads those of 8 bits."""

UNDEFINED = -1
"""The `mode` of a file that could not be decoded."""

COLUMN_SCHEMA = StructType(
    [
        StructField("origin", StringType()),
        StructField("height", IntegerType(), nullable=False),
        StructField("width", IntegerType(), nullable=False),
        StructField("nChannels", IntegerType(), nullable=False),
        StructField("mode", IntegerType(), nullable=False),
        StructField("data", BinaryType(), nullable=False),
    ]
)
"""The type of an image column: `pyspark.ml.image.ImageSchema.columnSchema`."""

_BY_ORDINAL = {each.ord: each for each in OCV_TYPES}
_BY_CONTENT = {(each.dtype, each.nChannels): each for each in OCV_TYPES}
_image = Row(*COLUMN_SCHEMA.names)

# Pillow's modes, and how their pixels lie in an image column: type and Pillow's name of the order.
_OF_PIL = {
    "L": (_BY_CONTENT["uint8", 1], "L"),
    "RGB": (_BY_CONTENT["uint8", 3], "BGR"),
    "RGBA": (_BY_CONTENT["uint8", 4], "BGRA"),
}
_TO_PIL = {kind.ord: (mode, order) for mode, (kind, order) in _OF_PIL.items()}


def image_type(mode: int) -> OcvType:
    """Return the type with a number.

    Raises
    ------
    KeyError
        There is none.
    """
    if mode not in _BY_ORDINAL:
        known = ", ".join(f"{each.ord} ({each.name})" for each in OCV_TYPES)
        raise KeyError(f"unsupported image type with ordinal {mode}; supported are {known}")
    return _BY_ORDINAL[mode]


def image_row(array: NDArray[Any], origin: str = "") -> Row:
    """Return the row of an array.

    Parameters
    ----------
    array : ndarray of shape (height, width, channels), uint8 or float32
        One channel (gray), three (blue, green, red) or four (and alpha).
    origin
        Where the image comes from.

    Raises
    ------
    ValueError
        The array has not three axes, or another type of values.
    KeyError
        Another number of channels.
    """
    if array.ndim != 3:  # noqa: PLR2004
        raise ValueError(
            f"an image has three axes (height, width, channels), not the shape {array.shape}"
        )
    height, width, channels = array.shape
    if array.dtype not in (np.uint8, np.float32):
        raise ValueError(f"unsupported type of values: {array.dtype}, not uint8 or float32")
    kind = _BY_CONTENT.get((array.dtype.name, channels))
    if kind is None:
        raise KeyError(f"unsupported number of channels: {channels}, not 1, 3 or 4")
    return _image(origin, height, width, channels, kind.ord, bytearray(array.tobytes()))


def image_array(row: Row) -> NDArray[Any]:
    """Return the pixels of a row, of shape (height, width, channels): a view into its data.

    Raises
    ------
    KeyError
        Its mode is none of `OCV_TYPES`.
    """
    kind = image_type(row.mode)
    return np.ndarray((row.height, row.width, row.nChannels), kind.dtype, row.data)


def pil_row(image: Image.Image, origin: str = "") -> Row:
    """Return the row of a Pillow image; of another mode than L, RGB or RGBA, it is converted.

    Raises
    ------
    UnreadableImage
        Floating-point gray that is NaN or infinite.
    """
    image = in_8_bits(image)
    kind, order = _OF_PIL[image.mode]
    data = image.tobytes("raw", order)
    return _image(origin, image.height, image.width, kind.nChannels, kind.ord, data)


def pil_image(height: int, width: int, mode: int, data: bytes) -> Image.Image:
    """Return the Pillow image (L, RGB or RGBA) of pixels in an image column.

    Parameters
    ----------
    height, width
        In pixels.
    mode
        One of those of 8 bits in `OCV_TYPES`.
    data
        As long as these say.
    """
    pil_mode, order = _TO_PIL[mode]
    return Image.frombytes(pil_mode, (width, height), data, "raw", order, 0, 1)


def undecoded_row(origin: str) -> Row:
    """Return the row that stands for a file which is no image that can be read."""
    return _image(origin, -1, -1, -1, UNDEFINED, b"")


def swap_channels(array: NDArray[Any]) -> NDArray[Any]:
    """Turn RGB into BGR and back, the last axis being the channels; alpha stays the last of four.

    Returns
    -------
    ndarray
        A view, or a copy if there are four channels.
    """
    return array[..., [2, 1, 0, 3]] if array.shape[-1] == 4 else array[..., ::-1]  # noqa: PLR2004
