"""Turn the bytes of an image file into pixels, or into the reason why not."""

from __future__ import annotations

import io
import struct
import warnings
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = [
    "MAX_PIXELS",
    "Resampling",
    "UnreadableImage",
    "check_extent",
    "decode_image",
    "decode_whole",
    "in_8_bits",
    "on_white",
    "resize",
]

MAX_PIXELS = 150_000_000
"""The largest image that is decoded, in pixels (450 MB of RGB).

It lies below the size that Pillow itself refuses (179 megapixels)."""

# A large JPEG is decoded at 1/2, 1/4 or 1/8, but to no less than this times the size wanted. At 2,
# photos differ twice as much from those decoded whole, and typical ones are no faster.
_MARGIN = 3
# More than the longest side that a JPEG can have: it is decoded whole.
_WHOLE = 1 << 16

Resampling = Literal["bilinear", "area", "nearest"]
"""How an image is brought to another size.

``bilinear`` is a triangle as wide as the reduction, ``area`` the mean of the pixels that fall on
one (both antialiased), ``nearest`` one of them: Pillow's ``BILINEAR``, ``BOX`` and ``NEAREST``."""

_FILTERS: dict[Resampling, Image.Resampling] = {
    "bilinear": Image.Resampling.BILINEAR,
    "area": Image.Resampling.BOX,
    "nearest": Image.Resampling.NEAREST,
}

# Pillow's modes of gray of 8 bits at most: black and white, gray, with alpha, alpha multiplied in.
_GRAY = frozenset({"1", "L", "LA", "La"})

_PILLOW = r"PIL\."

# What the files of each accepted format hold, after an offset in bytes.
_SIGNATURES = (
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (0, b"GIF87a", "GIF"),
    (0, b"GIF89a", "GIF"),
    (0, b"BM", "BMP"),
    (8, b"WEBP", "WEBP"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"II+\0", "TIFF"),  # BigTIFF
    (0, b"MM\0+", "TIFF"),
)

# The strangers most often met among images.
_UNSUPPORTED = (
    (0, b"%PDF", "PDF"),
    (0, b"<svg", "SVG"),
    (0, b"<?xml", "XML or SVG"),
    (0, b"8BPS", "PSD"),
    (4, b"ftypavif", "AVIF"),
    (4, b"ftyphei", "HEIC"),
    (4, b"ftypmif1", "HEIC"),
)

# JPEG markers (ISO 10918-1, table B.1), and a segment as a frame header begins.
_START_OF_IMAGE = b"\xff\xd8"
_START_OF_FRAME = frozenset({0xC0, 0xC1, 0xC2})  # baseline, extended, progressive: by Huffman
_START_OF_SCAN = 0xDA
# Tables (DHT, DQT, DRI), JFIF (APP0), colour profile (APP2), comment: nothing that turns an image
# (APP1: EXIF, XMP) or changes its colours (APP14: Adobe).
_PLAIN_SEGMENTS = frozenset({0xC4, 0xDB, 0xDD, 0xE0, 0xE2, 0xFE})
_FRAME = struct.Struct(">BBHBHHB")  # 0xFF, marker, length, bits, height, width, channels
# Above this, the header's share of the time does not show.
_PLAIN_PIXELS = 1_000_000

# Exif 2.32, tag 0x0112: how stored pixels are turned to stand upright (1 = they do).
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class UnreadableImage(ValueError):  # noqa: N818 - it names what the file is
    """The bytes are no image that can be read.

    Parameters
    ----------
    reason
        One short sentence for the quarantine; the same bytes always give the same one.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def decode_image(
    data: bytes, *, size: tuple[int, int], resampling: Resampling = "bilinear"
) -> NDArray[np.uint8]:
    """Decode an image and squeeze it, whole, to one size.

    JPEG, PNG, GIF, BMP, WebP and TIFF are read, of several frames or pages the first. The
    orientation in the EXIF data is honoured; an embedded colour profile is not applied, as Keras
    does not apply it either. The pixels become 8-bit RGB:

    - transparency is laid on white, the background on which the fruit images stand;
    - 16-bit gray is scaled from its full range (divided by 257 and rounded);
    - 32-bit integer and floating-point gray has no range of its own: it is stretched from its
      smallest to its largest value (a constant image becomes black);
    - other modes (gray, palette, CMYK, YCbCr) are converted by Pillow.

    The size is reached, without cropping, by default by Pillow's ``BILINEAR`` filter (a triangle as
    wide as the reduction, hence antialiased), which is what ``keras.utils.load_img(...,
    interpolation="bilinear")`` does: equal to the bit, but for large JPEGs. One whose shorter side
    has at least six times the longer side of `size` is decoded at 1/2, 1/4 or 1/8 (libjpeg's DCT
    scaling), so that at least three times `size` is left for the filter. A 40-megapixel photo then
    takes a quarter of the time and 3 MB instead of 160; a progressive one keeps its coefficients,
    120 MB of 270. Pixels differ from those of the photo decoded whole by less than 0.5 of 255 in
    the mean and 12 at most; features of EfficientNetLite0 by a cosine of 0.9998 in the median and
    0.998 at least, which is less than one level more or less in a tenth of the values does. With
    ``nearest``, which would show it, all are decoded whole.

    Safe to call from several threads, which then decode in parallel. Pillow's warnings are silenced
    for the whole process: what they complain about is either read all the same or an error here.

    Parameters
    ----------
    data
        The content of one image file.
    size
        Height and width of the result, in pixels, each at least 1.
    resampling
        How the size is reached.

    Returns
    -------
    ndarray of shape (height, width, 3), uint8
        Red, green and blue, 0 to 255; read-only.

    Raises
    ------
    UnreadableImage
        The file is empty, truncated, corrupt, larger than `MAX_PIXELS`, or no image of these
        formats.
    """
    side = _WHOLE if resampling == "nearest" else _MARGIN * max(size)
    image = _read_plain_jpeg(data, side) or _read_rgb(data, side)
    return np.asarray(resize(image, size, resampling))


def decode_whole(data: bytes) -> Image.Image:
    """Decode an image at its own size, upright, with the channels that it has.

    What is read, and what is refused, is the same as for `decode_image`.

    Parameters
    ----------
    data
        The content of one image file.

    Returns
    -------
    PIL.Image.Image
        In mode ``L``, ``RGB`` or ``RGBA``: see `in_8_bits`.

    Raises
    ------
    UnreadableImage
        As `decode_image`.
    """
    return _read_plain_jpeg(data, _WHOLE) or _read(data, _WHOLE, converted=in_8_bits)


def in_8_bits(image: Image.Image) -> Image.Image:
    """Return an image in one of the three modes of 8 bits a channel, by what it shows.

    Parameters
    ----------
    image
        Of any mode.

    Returns
    -------
    PIL.Image.Image
        ``L`` for gray of any depth, scaled as `decode_image` does; its transparency is dropped.
        ``RGBA`` for colour with transparency, a palette's included. Else ``RGB``.

    Raises
    ------
    UnreadableImage
        Floating-point gray that is NaN or infinite.
    """
    if _is_deep_gray(image):
        return Image.fromarray(_gray_to_8_bit(image))
    if image.mode in _GRAY:
        return image if image.mode == "L" else image.convert("L")
    mode = "RGBA" if image.has_transparency_data else "RGB"
    return image if image.mode == mode else image.convert(mode)


def on_white(image: Image.Image) -> Image.Image:
    """Lay an image of mode ``RGBA`` on white; the result has mode ``RGB``."""
    canvas = Image.new("RGB", image.size, "white")
    canvas.paste(image, mask=image)
    return canvas


def resize(image: Image.Image, size: tuple[int, int], resampling: Resampling) -> Image.Image:
    """Bring an image to a size (height and width, in pixels); one that has it stays as it is."""
    height, width = size
    if image.size == (width, height):
        return image
    return image.resize((width, height), _FILTERS[resampling])


def _read_plain_jpeg(data: bytes, side: int) -> Image.Image | None:
    """Read the commonest kind of small JPEG the short way; None for anything else.

    Pillow reads JPEG headers in Python, even tables that only libjpeg needs: more than a third of
    the time that 100 x 100 pixels take. A file without EXIF data needs to be asked for its size
    alone. What can't be read this way goes the long one, which says why.
    """
    extent = _plain_jpeg_extent(data)
    if extent is None or not 0 < extent[0] * extent[1] <= _PLAIN_PIXELS or min(extent) >= 2 * side:
        return None
    try:
        return Image.frombytes("RGB", extent, data, "jpeg", "RGB", "")
    except Exception:  # noqa: BLE001 - garbage makes Pillow raise almost anything
        return None


def _plain_jpeg_extent(data: bytes) -> tuple[int, int] | None:
    """Return width and height of a JPEG of three channels without metadata, else None.

    The header is a chain of segments (ISO 10918-1, annex B): 0xFF, a marker, two bytes of length,
    content; it ends where the first scan starts.
    """
    extent = None
    position = 2 if data.startswith(_START_OF_IMAGE) else len(data)
    while position + _FRAME.size <= len(data):
        escape, marker, length, bits, height, width, channels = _FRAME.unpack_from(data, position)
        if escape != 0xFF:  # noqa: PLR2004
            return None
        if marker == _START_OF_SCAN:
            return extent
        if marker in _START_OF_FRAME:
            if extent or (bits, channels) != (8, 3):
                return None
            extent = width, height
        elif marker not in _PLAIN_SEGMENTS:
            return None
        position += 2 + length
    return None


def _read_rgb(data: bytes, side: int) -> Image.Image:
    """Read an image as `_read` does, as RGB."""
    return _read(data, side, converted=_rgb)


def _read(
    data: bytes, side: int, *, converted: Callable[[Image.Image], Image.Image]
) -> Image.Image:
    """Read an image upright: at its own size, or (JPEG) at no less than `side` pixels."""
    file_format = _file_format(data)
    _silence_pillow()
    try:
        image = Image.open(io.BytesIO(data), formats=[file_format])
        check_extent(*image.size)
        image.draft(None, (side, side))  # only JPEG heeds it
        image.load()
        return converted(_upright(image))
    except UnreadableImage:
        raise
    except UnidentifiedImageError as exc:
        # Its own message holds a memory address.
        raise UnreadableImage(f"corrupt {file_format}: its header cannot be read") from exc
    except Image.DecompressionBombError as exc:
        raise UnreadableImage(_too_large()) from exc
    except Exception as exc:  # garbage makes Pillow raise almost anything, down to AttributeError
        text = str(exc) or type(exc).__name__
        state = "truncated" if "truncated" in text.lower() else "corrupt"
        raise UnreadableImage(f"{state} {file_format}: {text}") from exc


def _file_format(data: bytes) -> str:
    """Tell the format by the first bytes, since a file's name may lie."""
    if not data:
        raise UnreadableImage("empty file (0 bytes)")
    for offset, signature, name in _SIGNATURES:
        if data.startswith(signature, offset):
            return name
    for offset, signature, name in _UNSUPPORTED:
        if data.startswith(signature, offset):
            raise UnreadableImage(f"unsupported format {name}")
    raise UnreadableImage(f"not an image: the file starts with {data[:12]!r}")


def _silence_pillow() -> None:
    """Put "ignore what Pillow warns of" in front of the process' warning filters.

    It stays there, because `warnings.catch_warnings` is not safe among threads before Python 3.14:
    one thread would end the silence of another.
    """
    first = warnings.filters[0] if warnings.filters else None
    if first is None or first[0] != "ignore" or getattr(first[3], "pattern", None) != _PILLOW:
        warnings.filterwarnings("ignore", module=_PILLOW)


def check_extent(width: int, height: int) -> None:
    """Refuse, before its pixels take memory, an image of no pixels or of too many.

    Raises
    ------
    UnreadableImage
        The width or the height is less than 1, or there are more than `MAX_PIXELS`.
    """
    if min(width, height) < 1:
        raise UnreadableImage(f"no pixels: its size is {width}x{height}")
    if width * height > MAX_PIXELS:
        raise UnreadableImage(_too_large())


def _too_large() -> str:
    return f"too large: more than {MAX_PIXELS // 1_000_000} megapixels"


def _upright(image: Image.Image) -> Image.Image:
    """Turn an image as its EXIF data says; with unreadable EXIF data it stays as it is."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # noqa: BLE001 - Pillow's EXIF parser raises almost anything on garbage
        return image
    # A TIFF has none here: Pillow has turned it while loading.
    method = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return image if method is None else image.transpose(method)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image  # as it is: `convert` would copy all of it
    if _is_deep_gray(image):
        return Image.fromarray(_gray_to_8_bit(image)).convert("RGB")
    if image.has_transparency_data:
        return on_white(image.convert("RGBA"))
    return image.convert("RGB")


def _is_deep_gray(image: Image.Image) -> bool:
    """Whether it is gray of more than 8 bits."""
    return image.mode.startswith("I") or image.mode == "F"


def _gray_to_8_bit(image: Image.Image) -> NDArray[np.uint8]:
    """Scale gray of 16 bits from its full range, other gray from its own smallest to largest."""
    gray = np.asarray(image)
    if image.mode.startswith("I;16"):
        return ((gray.astype(np.uint32) + 128) // 257).astype(np.uint8)
    low, high = float(gray.min()), float(gray.max())
    if not np.isfinite([low, high]).all():
        raise UnreadableImage("pixels that are NaN or infinite")
    span = high - low or 1.0
    return np.rint((gray.astype(np.float64) - low) * (255 / span)).astype(np.uint8)
