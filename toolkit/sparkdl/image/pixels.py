"""The pixels of an image column: as they are stored, or RGB of 8 bits and one size for networks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.images.decode import UnreadableImage, check_extent, on_white, resize
from toolkit.sparkdl.image.rows import UNDEFINED, image_type, pil_image

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

    from toolkit.images.decode import Resampling

__all__ = ["rgb_of_size", "rgb_pixels", "stored_pixels"]

_BLUE_GREEN_RED = 3
_WITH_ALPHA = 4


def stored_pixels(
    height: int, width: int, n_channels: int, mode: int, data: bytes, *, dtype: str | None = None
) -> NDArray[Any]:
    """Return the values of an image struct as they are stored.

    Parameters
    ----------
    height, width, n_channels, mode, data
        The fields of the struct; `data` may be any buffer.
    dtype
        The one type of values that will do, ``uint8`` or ``float32``; None for either.

    Returns
    -------
    ndarray of shape (height, width, n_channels), uint8 or float32
        Gray, or blue, green, red and alpha: a view into `data`.

    Raises
    ------
    UnreadableImage
        The file was not decoded, the mode is unknown or of another type, a field is null, the
        fields do not fit each other, or there are more than `toolkit.images.decode.MAX_PIXELS`.
    """
    if height is None or width is None or n_channels is None or mode is None or data is None:
        raise UnreadableImage("no image: one of its fields is null")
    if mode == UNDEFINED:
        raise UnreadableImage("no image: its file could not be decoded")
    try:
        kind = image_type(mode)
    except KeyError:
        raise UnreadableImage(f"unsupported image type {mode} (unknown to Spark)") from None
    if dtype not in {None, kind.dtype}:
        raise UnreadableImage(f"unsupported image type {mode} ({kind.name})")
    if n_channels != kind.nChannels:
        raise UnreadableImage(f"{n_channels} channels, but the image type is {kind.name}")
    check_extent(width, height)
    expected = height * width * n_channels * np.dtype(kind.dtype).itemsize
    if len(data) != expected:
        raise UnreadableImage(f"{len(data)} bytes of pixels instead of {expected}")
    return np.frombuffer(data, kind.dtype).reshape(height, width, n_channels)


def rgb_pixels(
    height: int, width: int, n_channels: int, mode: int, data: bytes
) -> NDArray[np.uint8]:
    """Return the pixels of an image struct as RGB.

    Gray is repeated, transparency laid on white.

    Parameters
    ----------
    height, width, n_channels, mode, data
        As for `stored_pixels`.

    Returns
    -------
    ndarray of shape (height, width, 3), uint8
        Red, green and blue.

    Raises
    ------
    UnreadableImage
        As `stored_pixels`; or the mode is none of 8 bits.
    """
    stored = stored_pixels(height, width, n_channels, mode, data, dtype="uint8")
    if n_channels == _WITH_ALPHA:
        return np.asarray(on_white(pil_image(height, width, mode, data)))
    # Channel by channel: five times as fast as copying a view with the channels turned round.
    rgb = np.empty((height, width, 3), np.uint8)
    for channel in range(3):
        rgb[..., channel] = stored[..., n_channels - 1 - channel if n_channels > 1 else 0]
    return rgb


def rgb_of_size(
    height: int,
    width: int,
    n_channels: int,
    mode: int,
    data: bytes,
    *,
    size: tuple[int, int],
    resampling: Resampling,
) -> NDArray[np.uint8]:
    """Return the pixels of an image struct as RGB, squeezed to one size.

    Transparency is laid on white before.

    Parameters
    ----------
    height, width, n_channels, mode, data
        As for `stored_pixels`.
    size
        Height and width of the result, in pixels, each at least 1.
    resampling
        How the size is reached: see `toolkit.images.decode.Resampling`.

    Returns
    -------
    ndarray of shape (size[0], size[1], 3), uint8
        Red, green and blue; an image that has the size is not changed.

    Raises
    ------
    UnreadableImage
        As `rgb_pixels`.
    """
    if (height, width) == size:
        return rgb_pixels(height, width, n_channels, mode, data)
    stored_pixels(height, width, n_channels, mode, data, dtype="uint8")  # for what it refuses
    image: Image.Image = pil_image(height, width, mode, data)
    image = resize(on_white(image) if n_channels == _WITH_ALPHA else image, size, resampling)
    return np.asarray(image if n_channels >= _BLUE_GREEN_RED else image.convert("RGB"))
