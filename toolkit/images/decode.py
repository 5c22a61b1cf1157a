"""Turn the bytes of an image file into RGB pixels of one size, or into the reason why not."""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["MAX_PIXELS", "UnreadableImage", "decode_image", "decoded_pixels"]

MAX_PIXELS = 150_000_000
"""The largest image that is decoded, in pixels (450 MB of RGB).

It lies below the size that Pillow itself refuses (179 megapixels)."""

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


def decode_image(data: bytes, *, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Decode an image and squeeze it, whole, to one size.

    JPEG, PNG, GIF, BMP, WebP and TIFF are read, of several frames or pages the first. The
    orientation in the EXIF data is honoured; an embedded colour profile is not applied, as Keras
    does not apply it either. The pixels become 8-bit RGB:

    - transparency is laid on white, the background on which the fruit images stand;
    - 16-bit gray is scaled from its full range (divided by 257 and rounded);
    - 32-bit integer and floating-point gray has no range of its own: it is stretched from its
      smallest to its largest value (a constant image becomes black);
    - other modes (gray, palette, CMYK, YCbCr) are converted by Pillow.

    The size is reached by Pillow's ``BILINEAR`` filter (a triangle as wide as the reduction, hence
    antialiased), without cropping, which is what ``keras.utils.load_img(...,
    interpolation="bilinear")`` does.

    Safe to call from several threads, which then decode in parallel. Pillow's warnings are silenced
    for the whole process: what they complain about is either read all the same or an error here.

    Parameters
    ----------
    data
        The content of one image file.
    size
        Height and width of the result, in pixels, each at least 1.

    Returns
    -------
    ndarray of shape (height, width, 3), uint8
        Red, green and blue, 0 to 255.

    Raises
    ------
    UnreadableImage
        The file is empty, truncated, corrupt, larger than `MAX_PIXELS`, or no image of these
        formats.
    """
    image = _read_rgb(data)
    height, width = size
    return np.array(image.resize((width, height), Image.Resampling.BILINEAR))


def decoded_pixels(data: bytes) -> int:
    """Return how many pixels an image has, from its header.

    Raises
    ------
    UnreadableImage
        As `decode_image`, as far as the header tells.
    """
    file_format = _file_format(data)
    _silence_pillow()
    try:
        image = Image.open(io.BytesIO(data), formats=[file_format])
    except Exception as exc:
        raise UnreadableImage(f"corrupt {file_format}: its header cannot be read") from exc
    return image.size[0] * image.size[1]


def _read_rgb(data: bytes) -> Image.Image:
    """Read an image upright, as RGB, at its own size."""
    file_format = _file_format(data)
    _silence_pillow()
    try:
        image = Image.open(io.BytesIO(data), formats=[file_format])
        _check_extent(image)
        image.load()
        return _rgb(_upright(image))
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


def _check_extent(image: Image.Image) -> None:
    """Refuse, before its pixels take memory, an image of no pixels or of too many."""
    width, height = image.size
    if width * height == 0:
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
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_gray_to_8_bit(image)).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        canvas = Image.new("RGB", image.size, "white")
        canvas.paste(rgba, mask=rgba)
        return canvas
    return image.convert("RGB")


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
