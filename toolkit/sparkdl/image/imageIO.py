"""SparkDL's `sparkdl.image.imageIO`: images as rows, arrays and Pillow images, and their readers.

Arrays have the shape (height, width, channels), and their channels the order blue, green, red,
alpha, as in an image column. Of the original's behaviour only errors are mended: gray and
transparency survive every conversion, and a row that can't be converted becomes null.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyspark.sql.functions import udf
from pyspark.sql.types import BinaryType, StringType, StructField, StructType

from toolkit.images.decode import decode_whole, resize
from toolkit.sparkdl.image.reading import read_files
from toolkit.sparkdl.image.rows import (
    COLUMN_SCHEMA,
    OCV_TYPES,
    OcvType,
    image_array,
    image_row,
    image_type,
    pil_image,
    pil_row,
    swap_channels,
)
from toolkit.sparkdl.image.schema import IMAGE_SCHEMA

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image
    from pyspark import SparkContext
    from pyspark.sql import DataFrame, Row

__all__ = [
    "PIL_decode",
    "PIL_decode_and_resize",
    "PIL_to_imageStruct",
    "createResizeImageUDF",
    "filesToDF",
    "fixColorChannelOrdering",
    "imageArrayToStruct",
    "imageStructToArray",
    "imageStructToPIL",
    "imageType",
    "imageTypeByName",
    "imageTypeByOrdinal",
    "readImagesWithCustomFn",
]

_FILE_SCHEMA = StructType(
    [
        StructField("filePath", StringType(), nullable=False),
        StructField("fileData", BinaryType(), nullable=False),
    ]
)


def imageTypeByOrdinal(ord: int) -> OcvType:
    """Return the type of image with OpenCV's number.

    Parameters
    ----------
    ord
        The field `mode` of an image.

    Raises
    ------
    KeyError
        There is none.
    """
    return image_type(ord)


def imageTypeByName(name: str) -> OcvType:
    """Return the type of image with OpenCV's name.

    Parameters
    ----------
    name
        Such as ``CV_8UC3``: 8 bits, unsigned, three channels.

    Raises
    ------
    KeyError
        There is none.
    """
    for kind in OCV_TYPES:
        if kind.name == name:
            return kind
    known = ", ".join(kind.name for kind in OCV_TYPES)
    raise KeyError(f"unsupported image type with name {name!r}; supported are {known}")


def imageType(imageRow: Row) -> OcvType:
    """Return the type of an image.

    Parameters
    ----------
    imageRow
        A row with the fields of ``ImageSchema.columnSchema``.

    Raises
    ------
    KeyError
        Its mode is none of the supported types.
    """
    return image_type(imageRow.mode)


def imageArrayToStruct(imgArray: NDArray[Any], origin: str = "") -> Row:
    """Return the row of an array.

    Parameters
    ----------
    imgArray : ndarray of shape (height, width, channels) or (1, height, width, channels)
        uint8 or float32; one channel (gray), three (blue, green, red) or four (and alpha).
    origin
        Where the image comes from.

    Returns
    -------
    Row
        With the fields of ``ImageSchema.columnSchema``.

    Raises
    ------
    ValueError
        The array has other axes, or another type of values.
    KeyError
        Another number of channels.
    """
    if imgArray.ndim == 4:  # noqa: PLR2004
        if imgArray.shape[0] != 1:
            raise ValueError(
                "the first of an image's four dimensions should be 1, "
                f"but the shape is {imgArray.shape}"
            )
        imgArray = imgArray[0]
    return image_row(imgArray, origin)


def imageStructToArray(imageRow: Row) -> NDArray[Any]:
    """Return the pixels of an image.

    Parameters
    ----------
    imageRow
        A row with the fields of ``ImageSchema.columnSchema``.

    Returns
    -------
    ndarray of shape (height, width, nChannels), uint8 or float32
        A view into the data of the row.

    Raises
    ------
    KeyError
        Its mode is none of the supported types.
    """
    return image_array(imageRow)


def imageStructToPIL(imageRow: Row) -> Image.Image:
    """Return the Pillow image of an image of 8 bits a channel.

    Parameters
    ----------
    imageRow
        A row with the fields of ``ImageSchema.columnSchema``.

    Returns
    -------
    PIL.Image.Image
        In mode ``L``, ``RGB`` or ``RGBA``.

    Raises
    ------
    KeyError
        Its mode is none of the supported types.
    ValueError
        Its values are floating-point numbers, or its data have the wrong length.
    """
    kind = image_type(imageRow.mode)
    if kind.dtype != "uint8":
        raise ValueError(f"can't convert an image of {kind.name} to PIL: only 8 bits a channel")
    return pil_image(imageRow.height, imageRow.width, imageRow.mode, imageRow.data)


def PIL_to_imageStruct(img: Image.Image) -> NDArray[np.uint8]:
    """Return the pixels of a Pillow image as an image column has them.

    Parameters
    ----------
    img
        Of any mode; of another than ``L``, ``RGB`` and ``RGBA`` it is converted to the one of them
        that keeps most: see `toolkit.images.decode.in_8_bits`.

    Returns
    -------
    ndarray of shape (height, width, channels), uint8
        An array, despite the name: `imageArrayToStruct` makes a row of it.

    Raises
    ------
    ValueError
        Floating-point gray that is NaN or infinite.
    """
    return image_array(pil_row(img))


def fixColorChannelOrdering(currentOrder: str, imgAry: NDArray[Any]) -> NDArray[Any]:
    """Bring the channels of an image into the order of an image column.

    Parameters
    ----------
    currentOrder
        ``RGB``, ``BGR`` or ``L`` (gray).
    imgAry : ndarray of shape (height, width, channels)
        Of four channels the last is alpha and stays; gray may lack the last axis.

    Raises
    ------
    ValueError
        Another order, or gray of several channels.
    """
    if currentOrder == "RGB":
        return swap_channels(imgAry)
    if currentOrder == "BGR":
        return imgAry
    if currentOrder == "L":
        if imgAry.ndim != 2 and imgAry.shape[-1] != 1:  # noqa: PLR2004
            raise ValueError(
                f"channel order L means one color channel, but the shape is {imgAry.shape}"
            )
        return imgAry
    raise ValueError(f"unexpected channel order {currentOrder!r}, expected one of L, RGB, BGR")


def createResizeImageUDF(size: tuple[int, int]) -> Callable[..., Any]:
    """Return the function of Spark that resizes an image column.

    It takes the nearest pixel, as SparkDL's did with its Pillow 4.1. An image that has the size is
    not touched. Null stays null, and so becomes an image that can't be resized: one that could not
    be decoded, or of floating-point numbers.

    Parameters
    ----------
    size
        Height and width, in pixels.

    Raises
    ------
    ValueError
        It is not two numbers.

    Examples
    --------
    >>> small = images.select(createResizeImageUDF((224, 224))("image"))  # doctest: +SKIP
    """
    if len(size) != 2:  # noqa: PLR2004
        raise ValueError(f"the new size should be (height, width), not {size}")
    height, width = size

    def resized(image: Row | None) -> Row | None:
        if image is None or (image.height, image.width) == (height, width):
            return image
        try:
            pil = imageStructToPIL(image)
        except (KeyError, ValueError, TypeError):
            return None
        return pil_row(resize(pil, (height, width), "nearest"), image.origin)

    return udf(resized, COLUMN_SCHEMA, useArrow=False)  # by rows: structs are no pandas Series


def filesToDF(sc: SparkContext, path: str, numPartitions: int | None = None) -> DataFrame:
    """Read the files of a folder.

    Parameters
    ----------
    sc
        The context of the active session.
    path
        A folder (not those below it), a file, or a pattern: see ``ImageSchema.readImages``.
    numPartitions
        Of the result; default: the context's parallelism.

    Returns
    -------
    DataFrame
        Columns ``filePath`` (string: the URI) and ``fileData`` (binary), none of them null.

    Raises
    ------
    RequestError
        There is nothing at the path.
    """
    return read_files(
        path,
        lambda uri, content: (uri, content),
        schema=_FILE_SCHEMA,
        partitions=numPartitions or sc.defaultParallelism,
    )


def PIL_decode(raw_bytes: bytes) -> NDArray[np.uint8]:
    """Decode an image file.

    Parameters
    ----------
    raw_bytes
        Its content.

    Returns
    -------
    ndarray of shape (height, width, channels), uint8
        Upright; one, three or four channels, as the image has them.

    Raises
    ------
    UnreadableImage
        It is no image that can be read.
    """
    return image_array(pil_row(decode_whole(raw_bytes)))


def PIL_decode_and_resize(size: tuple[int, int]) -> Callable[[bytes], NDArray[np.uint8]]:
    """Return a function that decodes an image file and resizes the image.

    Parameters
    ----------
    size
        Width and height, in pixels: Pillow's order. The nearest pixel is taken, as SparkDL did with
        its Pillow 4.1.

    Returns
    -------
    callable
        As `PIL_decode`.
    """
    width, height = size

    def decode(raw_bytes: bytes) -> NDArray[np.uint8]:
        return image_array(pil_row(resize(decode_whole(raw_bytes), (height, width), "nearest")))

    return decode


def readImagesWithCustomFn(
    path: str,
    decode_f: Callable[[bytes], NDArray[Any]],
    numPartition: int | None = None,
) -> DataFrame:
    """Read the images of a folder with a decoder of one's own.

    Parameters
    ----------
    path
        A folder (not those below it), a file, or a pattern: see ``ImageSchema.readImages``.
    decode_f
        Called on executors with the content of a file; returns an array that `imageArrayToStruct`
        takes. `PIL_decode` is one.
    numPartition
        Partitions of the result; default: the session's default parallelism.

    Returns
    -------
    DataFrame
        One column, ``image``; null where `decode_f` raised an exception.

    Raises
    ------
    RequestError
        There is nothing at the path.
    """

    def decode(origin: str, content: bytes) -> tuple[Row | None]:
        try:
            return (imageArrayToStruct(decode_f(content), origin=origin),)
        except Exception:  # noqa: BLE001 - whatever a decoder raises about garbage
            return (None,)

    return read_files(path, decode, schema=IMAGE_SCHEMA, partitions=numPartition or -1)
