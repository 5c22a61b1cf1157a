"""Spark 2's `pyspark.ml.image.ImageSchema`, with the reader of images that Spark 3 took out."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from pyspark.ml.image import _ImageSchema as _SparkImageSchema
from pyspark.sql.types import StructField, StructType

from toolkit.images.decode import UnreadableImage, decode_whole
from toolkit.sparkdl.image.reading import read_files
from toolkit.sparkdl.image.rows import (
    COLUMN_SCHEMA,
    OCV_TYPES,
    UNDEFINED,
    image_row,
    pil_row,
    undecoded_row,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from pyspark.sql import DataFrame, Row

__all__ = ["IMAGE_SCHEMA", "ImageSchema"]

IMAGE_SCHEMA = StructType([StructField("image", COLUMN_SCHEMA)])
"""A DataFrame of images: the column ``image``, which may be null."""

_UNDEFINED_NAME = "Undefined"


class _ImageSchema(_SparkImageSchema):
    """What an image column is; `ImageSchema` is the one object of this class.

    Unlike Spark's own, it asks the JVM for nothing: it can be used in functions on executors.
    """

    def __init__(self) -> None:
        """Make the one object: Spark's class forbids it."""

    @cached_property
    def imageSchema(self) -> StructType:
        """Schema of a DataFrame of images: one nullable column, ``image``."""
        return IMAGE_SCHEMA

    @cached_property
    def columnSchema(self) -> StructType:
        """Type of an image column.

        ``struct<origin:string, height:int, width:int, nChannels:int, mode:int, data:binary>``;
        `data` are the values row by row, of a pixel in the order blue, green, red, alpha.
        """
        return COLUMN_SCHEMA

    @cached_property
    def ocvTypes(self) -> dict[str, int]:
        """Numbers of OpenCV's types (the field `mode`) that Spark reads, by name."""
        eight_bits = {each.name: each.ord for each in OCV_TYPES if each.dtype == "uint8"}
        return {_UNDEFINED_NAME: UNDEFINED, "CV_8U": eight_bits["CV_8UC1"], **eight_bits}

    @cached_property
    def imageFields(self) -> list[str]:
        """Names of the fields of an image, in their order."""
        return list(COLUMN_SCHEMA.names)

    @cached_property
    def undefinedImageType(self) -> str:
        """Name of the type of a file that could not be decoded."""
        return _UNDEFINED_NAME

    def toNDArray(self, image: Row) -> NDArray[np.uint8]:
        """Return the pixels of an image.

        Parameters
        ----------
        image
            A row with the fields of `columnSchema`, of 8 bits a channel.

        Returns
        -------
        ndarray of shape (height, width, nChannels), uint8
            Channels in the order blue, green, red, alpha; a view into the row's data.

        Raises
        ------
        TypeError
            It is no `Row`.
        ValueError
            It lacks a field.
        """
        return super().toNDArray(image)

    def toImage(self, array: NDArray[Any], origin: str = "") -> Row:
        """Return the row of an array.

        Parameters
        ----------
        array : ndarray of shape (height, width, channels)
            One channel (gray), three (blue, green, red) or four (and alpha); cast to uint8.
        origin
            Where the image comes from.

        Raises
        ------
        TypeError
            It is no array.
        ValueError
            It has another number of axes or channels.
        """
        if not isinstance(array, np.ndarray):
            raise TypeError(f"array should be a numpy.ndarray, not {type(array)}")
        try:
            return image_row(array.astype(np.uint8, copy=False), origin)
        except KeyError as exc:
            raise ValueError(exc.args[0]) from exc

    def readImages(
        self,
        path: str,
        recursive: bool = False,  # noqa: FBT001, FBT002 - Spark's signature
        numPartitions: int = -1,
        dropImageFailures: bool = False,  # noqa: FBT001, FBT002
        sampleRatio: float = 1.0,
        seed: int = 0,
    ) -> DataFrame:
        """Read the images of a folder, on the active session.

        All files are tried, whatever their names, but those whose name (or folder below `path`)
        begins with ``.`` or ``_``. They are listed now; they are read and decoded, many at a time,
        by whatever action needs their pixels. An image stands upright, as its EXIF data says.
        Gray of any depth becomes one channel of 8 bits; colour three, blue first; colour with
        transparency four. What is read otherwise: see `toolkit.images.decode.decode_image`.

        Parameters
        ----------
        path
            A folder, a file, or a pattern of them (``*``, ``?``, ``[abc]``, ``{a,b}``): on the disk
            of every executor (plain, or beginning with ``file:``) or in an object store
            (``s3a://``, ``s3://``), which is reached as the session's Spark reaches it.
        recursive
            Read the folders below, too.
        numPartitions
            Partitions of the result, at least 1; -1: the session's default parallelism.
        dropImageFailures
            Leave out files that can't be decoded. Else each is a row with its origin, -1 for
            sizes, channels and mode, and no data.
        sampleRatio
            Which part of the files to read, 0 to 1. Whether a file is among them depends on
            nothing but its URI and the seed.
        seed
            Another number, another sample.

        Returns
        -------
        DataFrame
            One column, ``image``, of the type `columnSchema`. `origin` is ``file:///folder/name``
            or ``s3a://bucket/key``, its characters as they are. Rows come in the order of the
            origins; with a number of partitions, in an order that is always the same.

        Raises
        ------
        ValueError
            A number is out of its range.
        RequestError
            There is nothing at the path.
        """
        return read_files(
            path,
            _decoder(drop_failures=dropImageFailures),
            schema=IMAGE_SCHEMA,
            recursive=recursive,
            partitions=numPartitions,
            sample=(sampleRatio, seed),
        )


def _decoder(*, drop_failures: bool) -> Callable[[str, bytes], tuple[Row] | None]:
    def decode(origin: str, data: bytes) -> tuple[Row] | None:
        try:
            return (pil_row(decode_whole(data), origin),)
        except UnreadableImage:
            return None if drop_failures else (undecoded_row(origin),)

    return decode


ImageSchema = _ImageSchema()
"""What an image column is, and the reader of images: Spark 2's `pyspark.ml.image.ImageSchema`."""
