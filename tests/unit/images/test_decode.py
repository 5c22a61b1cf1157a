"""The pixels of every kind of image file, and the reasons for those that have none."""

from __future__ import annotations

import io
import random
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import ExifTags, Image

from tests.support.photos import decoded_whole, encoded, photo
from toolkit.images import decode as module
from toolkit.images.decode import MAX_PIXELS, UnreadableImage, decode_image, decode_whole

SIZE = (24, 32)
COLOURS = np.array([[[250, 20, 30], [20, 240, 40]], [[10, 30, 230], [240, 230, 20]]], np.uint8)
FORMATS = ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF"]


def quarters(height: int = SIZE[0], width: int = SIZE[1]) -> Image.Image:
    """Draw red, green, blue and yellow quarters."""
    return Image.fromarray(COLOURS.repeat(height // 2, 0).repeat(width // 2, 1))


def decoded(data: bytes, size: tuple[int, int] = SIZE) -> np.ndarray:
    pixels = decode_image(data, size=size)
    assert pixels.shape == (*size, 3)
    assert pixels.dtype == np.uint8
    return pixels.astype(int)


def centres(pixels: np.ndarray) -> np.ndarray:
    """Return the middle pixel of each quarter."""
    height, width, _ = pixels.shape
    return pixels[height // 4 :: height // 2, width // 4 :: width // 2]


def reason(data: bytes) -> str:
    with pytest.raises(UnreadableImage) as caught:
        decode_image(data, size=SIZE)
    return caught.value.reason


@pytest.mark.parametrize(
    ("file_format", "options", "tolerance"),
    [
        ("JPEG", {"quality": 95}, 6),
        ("JPEG", {"quality": 95, "progressive": True}, 6),
        ("PNG", {}, 0),
        ("GIF", {}, 0),
        ("BMP", {}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("WEBP", {"quality": 95}, 12),
        ("TIFF", {}, 0),
        ("TIFF", {"compression": "tiff_lzw"}, 0),
        ("TIFF", {"compression": "tiff_deflate", "big_tiff": True}, 0),
        ("TIFF", {"compression": "jpeg", "quality": 95}, 8),
    ],
)
def test_colours_of_every_format(file_format: str, options: dict[str, Any], tolerance: int) -> None:
    pixels = decoded(encoded(quarters(), file_format, **options))
    assert_allclose(centres(pixels), COLOURS, atol=tolerance)


@pytest.mark.parametrize(
    ("mode", "file_format", "tolerance"),
    [
        ("P", "PNG", 0),
        ("P", "GIF", 0),
        ("P", "BMP", 0),
        ("P", "TIFF", 0),
        ("RGBA", "PNG", 0),
        ("RGBA", "TIFF", 0),
        ("CMYK", "JPEG", 6),  # written inverted, as Adobe does
        ("CMYK", "TIFF", 0),
        ("YCbCr", "JPEG", 6),
        ("YCbCr", "TIFF", 6),
    ],
)
def test_colour_modes_become_rgb(mode: str, file_format: str, tolerance: int) -> None:
    image = quarters().quantize(4) if mode == "P" else quarters().convert(mode)
    options = {"quality": 95} if file_format == "JPEG" else {}
    assert_allclose(
        centres(decoded(encoded(image, file_format, **options))), COLOURS, atol=tolerance
    )


@pytest.mark.parametrize("file_format", FORMATS)
def test_gray_has_three_equal_channels(file_format: str) -> None:
    gray = Image.new("L", (32, 24), 77)
    assert_allclose(decoded(encoded(gray, file_format)), 77, atol=1)


@pytest.mark.parametrize("file_format", ["PNG", "BMP", "TIFF"])
def test_black_and_white_keeps_its_range(file_format: str) -> None:
    image = Image.new("1", (32, 24), 1)
    image.paste(0, (0, 0, 16, 24))
    pixels = decoded(encoded(image, file_format))
    assert pixels[12, 4].tolist() == [0, 0, 0]
    assert pixels[12, 28].tolist() == [255, 255, 255]


@pytest.mark.parametrize("file_format", ["PNG", "WEBP", "TIFF"])
def test_half_transparent_red_is_pink_on_white(file_format: str) -> None:
    image = Image.new("RGBA", (32, 24), (255, 0, 0, 128))
    options = {"lossless": True} if file_format == "WEBP" else {}
    pixels = decoded(encoded(image, file_format, **options))
    assert_allclose(pixels[12, 16], [255, 127, 127], atol=1)


def test_transparent_black_is_white() -> None:
    assert (decoded(encoded(Image.new("RGBA", (32, 24), (0, 0, 0, 0)), "PNG")) == 255).all()


def test_transparent_gray_is_laid_on_white() -> None:
    assert_allclose(decoded(encoded(Image.new("LA", (32, 24), (0, 51)), "PNG")), 204, atol=1)


@pytest.mark.parametrize("file_format", ["PNG", "GIF"])
def test_transparent_palette_entry_is_white(file_format: str) -> None:
    image = quarters().quantize(4)
    red = image.getpixel((8, 6))
    pixels = centres(decoded(encoded(image, file_format, transparency=red)))
    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert_array_equal(pixels[1], COLOURS[1])


def test_palette_with_an_alpha_for_each_entry_is_laid_on_white() -> None:
    image = Image.new("P", (32, 24), 1)
    image.putpalette([0, 0, 0, 0, 0, 255])
    assert_allclose(
        decoded(encoded(image, "PNG", transparency=bytes([255, 128])))[0, 0],
        [127, 127, 255],
        atol=1,
    )


def test_transparent_colour_of_an_rgb_png_is_white() -> None:
    pixels = centres(decoded(encoded(quarters(), "PNG", transparency=(250, 20, 30))))
    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert_array_equal(pixels[1], COLOURS[1])


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
@pytest.mark.parametrize(("sixteen", "eight"), [(0, 0), (300, 1), (32768, 128), (65535, 255)])
def test_sixteen_bit_gray_is_scaled_from_its_full_range(
    file_format: str, sixteen: int, eight: int
) -> None:
    image = Image.fromarray(np.full((24, 32), sixteen, np.uint16))
    assert (decoded(encoded(image, file_format)) == eight).all()


def test_big_endian_sixteen_bit_gray_is_scaled_alike() -> None:
    image = Image.frombytes("I;16B", (32, 24), struct.pack(">H", 32768) * (32 * 24))
    assert (decoded(encoded(image, "TIFF")) == 128).all()


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_gray_without_a_range_is_stretched_to_all_of_it(dtype: type) -> None:
    ramp = np.tile(np.linspace(-1000, 3000, 32).astype(dtype), (24, 1))
    pixels = decoded(encoded(Image.fromarray(ramp), "TIFF"))
    assert_allclose(pixels[0, :, 0], np.linspace(0, 255, 32), atol=1)


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_constant_gray_without_a_range_is_black(dtype: type) -> None:
    image = Image.fromarray(np.full((24, 32), 7, dtype))
    assert (decoded(encoded(image, "TIFF")) == 0).all()


def test_gray_of_nan_is_unreadable() -> None:
    image = Image.fromarray(np.full((24, 32), np.nan, np.float32))
    assert reason(encoded(image, "TIFF")) == "pixels that are NaN or infinite"


@pytest.mark.parametrize("channels", [3, 4])
def test_sixteen_bit_colour_png(channels: int) -> None:
    # Pillow does not write these: eight bits become sixteen by repeating the byte.
    rgb = np.asarray(quarters())
    alpha = np.full((*SIZE, channels - 3), 255, np.uint8)
    rows = np.concatenate([rgb, alpha], axis=2).astype(">u2") * 257
    raw = b"".join(b"\0" + row.tobytes() for row in rows.astype(">u2"))
    colour_type = {3: 2, 4: 6}[channels]
    assert_array_equal(centres(decoded(png(*SIZE[::-1], 16, colour_type, raw))), COLOURS)


def test_sixteen_bit_colour_tiff() -> None:
    pixels = (np.asarray(quarters()).astype("<u2") * 257).astype("<u2").tobytes()
    assert_array_equal(centres(decoded(rgb16_tiff(*SIZE[::-1], pixels))), COLOURS)


def png(width: int, height: int, depth: int, colour_type: int, raw: bytes) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + checksum

    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(raw))
        + chunk(b"IEND", b"")
    )


def rgb16_tiff(width: int, height: int, pixels: bytes) -> bytes:
    entries = [  # tag, type (3: 16 bits, 4: 32 bits), count, value
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 3, 8),  # bits per sample: at byte 8
        (259, 3, 1, 1),  # not compressed
        (262, 3, 1, 2),  # RGB
        (273, 4, 1, 14),  # pixels: at byte 14
        (277, 3, 1, 3),
        (278, 4, 1, height),
        (279, 4, 1, len(pixels)),
    ]
    directory = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return (
        b"II*\0"
        + struct.pack("<I3H", 14 + len(pixels), 16, 16, 16)
        + pixels
        + struct.pack("<H", len(entries))
        + directory
        + struct.pack("<I", 0)
    )


# The stored corners of an upright "red green / blue yellow", by the orientation that mends them:
# orientation 6, for one, says "turn me by 90 degrees clockwise".
STORED = {
    1: lambda upright: upright,
    2: np.fliplr,
    3: lambda upright: np.rot90(upright, 2),
    4: np.flipud,
    5: lambda upright: upright.swapaxes(0, 1),
    6: lambda upright: np.rot90(upright, 1),
    7: lambda upright: np.rot90(upright, 2).swapaxes(0, 1),
    8: lambda upright: np.rot90(upright, -1),
}


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", STORED)
def test_exif_orientation_is_honoured(orientation: int, file_format: str) -> None:
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](np.asarray(quarters()))))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    pixels = decoded(encoded(stored, file_format, exif=exif, quality=95))
    assert_allclose(centres(pixels), COLOURS, atol=12)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0garbage that is no TIFF directory",
        b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x12\x01\x03\0\xff\xff\xff\x7f" * 4,
        b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x02\0\0\0\x04abc\0\0\0\0\0",  # a text: "abc"
    ],
)
def test_corrupt_exif_does_not_spoil_the_image(exif: bytes, file_format: str) -> None:
    pixels = decoded(encoded(quarters(), file_format, exif=exif, quality=95))
    assert_allclose(centres(pixels), COLOURS, atol=12)


def test_pillow_warnings_stay_silent_whatever_the_filters(
    recwarn: pytest.WarningsRecorder,
) -> None:
    exif = b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x12\x01\x03\0\xff\xff\xff\x7f" * 4
    data = encoded(quarters(), "JPEG", exif=exif)
    for action in ("always", "error"):
        warnings.simplefilter(action)  # type: ignore[arg-type]
        decode_image(data, size=SIZE)
    assert not recwarn.list
    with pytest.raises(UserWarning, match="ours"):  # and only Pillow's
        warnings.warn("ours", stacklevel=1)


@pytest.mark.parametrize("file_format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_first_frame_is_taken(file_format: str) -> None:
    first, second = Image.new("RGB", (32, 24), "red"), Image.new("RGB", (32, 24), "blue")
    options = {"lossless": True} if file_format == "WEBP" else {}
    data = encoded(first, file_format, save_all=True, append_images=[second], **options)
    assert decoded(data)[12, 16].tolist() == [255, 0, 0]


def test_first_picture_of_a_multi_picture_jpeg_is_taken() -> None:
    # Phones write these under the name of .jpg.
    data = encoded(quarters(), "MPO", save_all=True, append_images=[quarters().rotate(180)])
    assert_allclose(centres(decoded(data)), COLOURS, atol=20)


@pytest.mark.parametrize("size", [(7, 11), (24, 32), (64, 48), (224, 224)])
def test_resize_is_pillow_bilinear_on_the_whole_image(size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (50, 90, 3), dtype=np.uint8)
    expected = Image.fromarray(noise).resize(size[::-1], Image.Resampling.BILINEAR)
    assert_array_equal(decode_image(encoded(Image.fromarray(noise), "PNG"), size=size), expected)


def test_reduction_is_antialiased() -> None:
    stripes = np.zeros((96, 128, 3), np.uint8)
    stripes[:, ::2] = 255
    assert_allclose(decoded(encoded(Image.fromarray(stripes), "PNG")), 128, atol=12)


@pytest.mark.parametrize("name", ["area", "nearest"])
@pytest.mark.parametrize("size", [(7, 11), (24, 32), (90, 50), (100, 190)])
def test_other_resamplings_are_pillows_box_and_nearest(name, size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (50, 90, 3), dtype=np.uint8)
    method = {"area": Image.Resampling.BOX, "nearest": Image.Resampling.NEAREST}[name]
    expected = Image.fromarray(noise).resize(size[::-1], method)
    pixels = decode_image(encoded(Image.fromarray(noise), "PNG"), size=size, resampling=name)
    assert_array_equal(pixels, expected)


def test_nearest_pixels_of_a_large_jpeg_are_those_of_the_whole_one() -> None:
    data = encoded(photo(900, 1200), "JPEG", quality=92)
    expected = Image.open(io.BytesIO(data)).resize((100, 100), Image.Resampling.NEAREST)
    assert_array_equal(decode_image(data, size=(100, 100), resampling="nearest"), expected)
    area = decode_image(data, size=(100, 100), resampling="area")
    whole = np.asarray(Image.open(io.BytesIO(data)).resize((100, 100), Image.Resampling.BOX))
    assert np.abs(area.astype(int) - whole).mean() < 1


WHOLE = [
    ("L", "PNG", {}, "L"),
    ("L", "JPEG", {}, "L"),
    ("1", "PNG", {}, "L"),
    ("LA", "PNG", {}, "L"),
    ("I;16", "PNG", {}, "L"),
    ("F", "TIFF", {}, "L"),
    ("RGB", "JPEG", {}, "RGB"),
    ("RGB", "PNG", {}, "RGB"),
    ("RGB", "PNG", {"transparency": (250, 20, 30)}, "RGBA"),
    ("P", "PNG", {}, "RGB"),
    ("P", "PNG", {"transparency": 1}, "RGBA"),
    ("P", "GIF", {"transparency": 1}, "RGBA"),
    ("RGBA", "PNG", {}, "RGBA"),
    ("RGBA", "WEBP", {"lossless": True, "exact": True}, "RGBA"),
    ("CMYK", "JPEG", {}, "RGB"),
    ("YCbCr", "TIFF", {}, "RGB"),
]


@pytest.mark.parametrize(("mode", "file_format", "options", "expected"), WHOLE)
def test_whole_image_has_the_channels_that_the_file_has(
    mode: str, file_format: str, options: dict[str, Any], expected: str
) -> None:
    if mode == "P":
        image = quarters().quantize(4)
    elif mode == "I;16":
        image = Image.fromarray(np.asarray(quarters().convert("L")).astype(np.uint16) * 257)
    else:
        image = quarters().convert(mode)
    if mode == "RGBA":
        image.putalpha(quarters().convert("L"))
    data = encoded(image, file_format, **options)
    whole = decode_whole(data)
    assert (whole.mode, whole.size) == (expected, (32, 24))
    # Gray has no transparency here; else it shows what `decode_image` shows.
    shown = whole if expected != "RGBA" else module.on_white(whole)
    assert_allclose(np.asarray(shown.convert("RGB")).astype(int), decoded(data), atol=1)


def test_gray_below_transparency_is_kept() -> None:
    whole = decode_whole(encoded(Image.new("LA", (32, 24), (77, 0)), "PNG"))
    assert set(np.asarray(whole).flat) == {77}


def test_colour_below_transparency_is_kept() -> None:
    whole = decode_whole(encoded(Image.new("RGBA", (32, 24), (9, 8, 7, 0)), "PNG"))
    assert whole.getpixel((0, 0)) == (9, 8, 7, 0)


@pytest.mark.parametrize("orientation", STORED)
def test_whole_image_stands_upright(orientation: int) -> None:
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](np.asarray(quarters()))))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    assert_array_equal(decode_whole(encoded(stored, "PNG", exif=exif)), quarters())


def test_large_jpeg_keeps_its_size_when_it_is_decoded_whole() -> None:
    for options in ({}, {"exif": Image.Exif().tobytes()}):
        data = encoded(photo(900, 1200), "JPEG", quality=92, **options)
        assert_array_equal(decode_whole(data), Image.open(io.BytesIO(data)))


def test_what_is_unreadable_is_unreadable_whole(bad_files: dict[str, bytes]) -> None:
    for data in [*bad_files.values(), b"%PDF-1.7", b"\x89PNG\r\n\x1a\n"]:
        with pytest.raises(UnreadableImage) as caught:
            decode_whole(data)
        assert caught.value.reason == reason(data)


def without_jfif(data: bytes) -> bytes:
    length = int.from_bytes(data[4:6], "big")
    assert data[2:4] == b"\xff\xe0"
    return data[:2] + data[4 + length :]


PLAIN = {
    "4:4:4": encoded(quarters(), "JPEG", subsampling="4:4:4"),
    "4:2:2": encoded(quarters(), "JPEG", subsampling="4:2:2"),
    "4:2:0": encoded(quarters(), "JPEG", subsampling="4:2:0"),
    "odd": encoded(quarters().resize((31, 17)), "JPEG"),
    "progressive": encoded(quarters(), "JPEG", progressive=True),
    "restart": encoded(quarters(), "JPEG", restart_marker_blocks=1),
    "comment": encoded(quarters(), "JPEG", comment=b"\xff\xda comment"),
    "profile": encoded(quarters(), "JPEG", icc_profile=bytes(70_000)),
    "no JFIF": without_jfif(encoded(quarters(), "JPEG")),
    "followed by more": encoded(quarters(), "JPEG") + b"more",
}
NOT_PLAIN = {
    "gray": encoded(quarters().convert("L"), "JPEG"),
    "CMYK": encoded(quarters().convert("CMYK"), "JPEG"),
    "RGB": encoded(quarters(), "JPEG", keep_rgb=True),
    "EXIF": encoded(quarters(), "JPEG", exif=Image.Exif().tobytes()),
    "XMP": encoded(quarters(), "JPEG", xmp=b"<nothing/>"),
    "filled": b"\xff\xd8\xff" + encoded(quarters(), "JPEG")[2:],
}


@pytest.mark.parametrize("name", PLAIN)
def test_plain_jpeg_is_read_the_short_way_and_gives_what_pillow_gives(name: str) -> None:
    assert module._read_plain_jpeg(PLAIN[name], 100) is not None
    for size in [SIZE, (17, 31), (64, 48), (224, 224)]:
        assert_array_equal(decoded(PLAIN[name], size), decoded_whole(PLAIN[name], size))


@pytest.mark.parametrize("name", NOT_PLAIN)
def test_any_other_jpeg_goes_the_long_way(name: str) -> None:
    assert module._read_plain_jpeg(NOT_PLAIN[name], 100) is None
    assert_array_equal(decoded(NOT_PLAIN[name]), decoded_whole(NOT_PLAIN[name], SIZE))


def test_damaged_plain_jpeg_gives_what_the_long_way_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    chance = random.Random(0)
    damaged = []
    for options in ({}, {"progressive": True}, {"restart_marker_blocks": 2}):
        data = encoded(Image.fromarray(noise), "JPEG", **options)
        damaged += [data[:end] for end in range(0, len(data), 20)]
        damaged += [damage(data, chance) for _ in range(150)]
    short = [pixels_or_reason(each) for each in damaged]
    with_pixels = sum(text is None for _, text in short)
    assert 60 < with_pixels < len(damaged) - 60
    monkeypatch.setattr(module, "_read_plain_jpeg", lambda *_: None)
    for each, (pixels, text) in zip(damaged, short, strict=True):
        expected_pixels, expected_text = pixels_or_reason(each)
        assert text == expected_text
        assert_array_equal(pixels, expected_pixels)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "empty file (0 bytes)"),
        (b"Hello, this is text", "not an image: the file starts with b'Hello, this '"),
        (b"\0" * 4096, r"not an image: the file starts with b'\x00\x00\x00\x00\x00"),
        (b"%PDF-1.7\n", "unsupported format PDF"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "unsupported format SVG"),
        (b"<?xml version='1.0'?><svg/>", "unsupported format XML or SVG"),
        (b"\0\0\0\x20ftypavif", "unsupported format AVIF"),
        (b"RIFF\x24\0\0\0WAVEfmt ", "not an image: the file starts with b'RIFF$"),
        (b"\x89PNG\r\n\x1a\n", "corrupt PNG: its header cannot be read"),
        (b"BM, said the text", "corrupt BMP: "),
    ],
)
def test_what_is_no_image_says_so(data: bytes, text: str) -> None:
    assert reason(data).startswith(text)


@pytest.mark.parametrize("file_format", ["ICO", "PPM", "TGA", "PCX", "JPEG2000", "EPS"])
def test_formats_beside_the_six_are_refused(file_format: str) -> None:
    assert "not an image" in reason(encoded(quarters(), file_format))


@pytest.mark.parametrize("file_format", FORMATS)
def test_truncated_file_says_so(file_format: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), file_format)
    text = reason(data[: len(data) // 2])
    assert text.startswith((f"truncated {file_format}: ", f"corrupt {file_format}: "))
    assert text == reason(data[: len(data) // 2])
    assert " at 0x" not in text


def test_truncated_jpeg_names_what_is_missing() -> None:
    data = encoded(quarters(240, 320), "JPEG")
    assert reason(data[:-100]).startswith("truncated JPEG: image file is truncated")


@pytest.mark.parametrize(
    ("width", "height"), [(12_500, 12_500), (30_000, 30_000), (2**31 - 1, 2**31 - 1)]
)
def test_header_of_a_huge_image_is_refused_before_its_pixels(width: int, height: int) -> None:
    assert width * height > MAX_PIXELS
    assert reason(png(width, height, 8, 2, b"\0" * 100)) == "too large: more than 150 megapixels"


@pytest.mark.parametrize(("width", "height"), [(0, 5), (5, 0)])
def test_image_of_no_pixels_is_refused(width: int, height: int) -> None:
    assert reason(png(width, height, 8, 2, b"")).startswith(("no pixels", "corrupt PNG"))


@pytest.mark.parametrize("offset", [5, 7])
def test_jpeg_of_no_pixels_is_refused(offset: int) -> None:
    data = bytearray(encoded(quarters(), "JPEG"))
    frame = data.index(b"\xff\xc0")
    data[frame + offset : frame + offset + 2] = b"\0\0"  # its height, its width
    assert reason(bytes(data)) == "corrupt JPEG: its header cannot be read"


@pytest.mark.parametrize(
    "options",
    [
        {"subsampling": "4:4:4"},
        {"subsampling": "4:2:0"},
        {"subsampling": "4:2:0", "progressive": True},
    ],
    ids=lambda options: " ".join(map(str, options.values())),
)
def test_large_jpeg_is_decoded_at_a_fraction_and_stays_close(options) -> None:
    image = Image.fromarray(np.tile(photo(900, 1200), (2, 2, 1)))
    data = encoded(image, "JPEG", quality=92, **options)
    whole = Image.open(io.BytesIO(data)).convert("RGB")
    for size in ((100, 100), (224, 224), (160, 96)):
        side = module._MARGIN * max(size)
        assert max(size) * 3 <= min(module._read_rgb(data, side).size) <= 900
        expected = np.asarray(whole.resize(size[::-1], Image.Resampling.BILINEAR)).astype(int)
        difference = np.abs(decoded(data, size) - expected)
        assert 0 < difference.mean() < 0.5
        assert difference.max() <= 12


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_large_jpeg_without_rgb_is_decoded_at_a_fraction(mode: str) -> None:
    data = encoded(photo(900, 1200).convert(mode), "JPEG", quality=92)
    assert module._read_rgb(data, 300).size == (600, 450)
    difference = np.abs(decoded(data, (100, 100)) - decoded_whole(data, (100, 100)))
    assert difference.mean() < 0.5


def test_jpeg_of_less_than_six_times_the_size_is_decoded_whole() -> None:
    for extent, whole in [((599, 640), True), ((640, 599), True), ((600, 600), False)]:
        data = encoded(photo(*extent), "JPEG", quality=92)
        same = (decoded(data, (80, 100)) == decoded_whole(data, (80, 100))).all()
        assert same == whole, extent


@pytest.mark.parametrize("orientation", STORED)
def test_large_jpeg_is_turned_after_it_was_decoded_at_a_fraction(orientation: int) -> None:
    upright = np.asarray(quarters(600, 1200))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](upright)))
    data = encoded(stored, "JPEG", exif=exif, quality=95)
    assert sorted(module._read_rgb(data, 100).size) == [150, 300]
    assert_allclose(centres(decoded(data, (20, 30))), COLOURS, atol=6)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"mode": "CMYK"}])
def test_truncated_large_jpeg_says_so(options) -> None:
    image = photo(900, 1200).convert(options.pop("mode", "RGB"))
    data = encoded(image, "JPEG", quality=92, **options)
    assert module._read_rgb(data, 100).size == (150, 113)
    for share in (0.2, 0.5, 0.9, 0.99):
        text = reason(data[: int(len(data) * share)])
        assert text.startswith("truncated JPEG: image file is truncated")


@pytest.mark.parametrize("file_format", FORMATS)
def test_damaged_bytes_give_pixels_or_a_reason(file_format: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    data = encoded(Image.fromarray(noise), file_format, exif=exif)
    chance = random.Random(0)
    damaged = [data[:end] for end in range(0, len(data), 50)]
    damaged += [damage(data, chance) for _ in range(150)]
    for each in damaged:
        _, text = pixels_or_reason(each)
        assert text != "", "a file was refused without a reason"
        assert text is None or " at 0x" not in text


def damage(data: bytes, chance: random.Random) -> bytes:
    """Change some bytes, half of the time in the header, where they change what is read."""
    changed = bytearray(data)
    for _ in range(chance.choice([1, 3, 20])):
        end = chance.choice([min(400, len(data)), len(data)])
        changed[chance.randrange(end)] = chance.randrange(256)
    return bytes(changed)


def pixels_or_reason(data: bytes) -> tuple[np.ndarray | None, str | None]:
    try:
        return decoded(data), None
    except UnreadableImage as unreadable:
        return None, unreadable.reason


def test_threads_decode_what_one_thread_does() -> None:
    files = [encoded(quarters(), name) for name in FORMATS] * 8
    expected = [decode_image(data, size=SIZE) for data in files]
    with ThreadPoolExecutor(4) as pool:
        for one, other in zip(
            expected, pool.map(lambda data: decode_image(data, size=SIZE), files), strict=True
        ):
            assert_array_equal(one, other)
