"""The pixels of an image struct for a network, and the reasons for those that have none."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

from toolkit.images.decode import MAX_PIXELS, UnreadableImage, on_white
from toolkit.sparkdl.image.pixels import rgb_of_size, rgb_pixels
from toolkit.sparkdl.image.rows import pil_row

SIZE = (20, 30)
METHODS = {
    "bilinear": Image.Resampling.BILINEAR,
    "area": Image.Resampling.BOX,
    "nearest": Image.Resampling.NEAREST,
}


def picture(mode: str) -> Image.Image:
    chance = np.random.default_rng(0)
    pixels = chance.integers(0, 256, (*SIZE, len(mode)), dtype=np.uint8)
    return Image.fromarray(pixels if len(mode) > 1 else pixels[..., 0])


def fields(mode: str) -> tuple:
    return tuple(pil_row(picture(mode)))[1:]


def shown(mode: str) -> Image.Image:
    """Return the picture as a network shall see it."""
    return on_white(picture(mode)) if mode == "RGBA" else picture(mode).convert("RGB")


@pytest.mark.parametrize("buffer", [bytes, bytearray, memoryview, pa.py_buffer])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_pixels_are_rgb(mode: str, buffer) -> None:
    *numbers, data = fields(mode)
    assert_array_equal(rgb_pixels(*numbers, buffer(data)), shown(mode))
    same = rgb_of_size(*numbers, buffer(data), size=SIZE, resampling="bilinear")
    assert_array_equal(same, shown(mode))
    other = rgb_of_size(*numbers, buffer(data), size=(9, 7), resampling="nearest")
    assert other.shape == (9, 7, 3)


@pytest.mark.parametrize("size", [(9, 7), (40, 30), (30, 20)])
@pytest.mark.parametrize("resampling", METHODS)
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_pixels_of_a_size_are_pillows(mode: str, resampling, size) -> None:
    pixels = rgb_of_size(*fields(mode), size=size, resampling=resampling)
    assert pixels.dtype == np.uint8
    assert_array_equal(pixels, shown(mode).resize(size[::-1], METHODS[resampling]))


BLACK = (2, 3, 3, 16, bytes(18))


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ((-1, -1, -1, -1, b""), "no image: its file could not be decoded"),
        ((2, 3, 3, 21, bytes(72)), "unsupported image type 21 (CV_32FC3)"),
        ((2, 3, 3, 99, bytes(18)), "unsupported image type 99 (unknown to Spark)"),
        ((2, 3, 1, 16, bytes(6)), "1 channels, but the image type is CV_8UC3"),
        ((0, 3, 3, 16, b""), "no pixels: its size is 3x0"),
        ((-2, -3, 3, 16, bytes(18)), "no pixels: its size is -3x-2"),
        ((2, 3, 3, 16, bytes(17)), "17 bytes of pixels instead of 18"),
        ((2, 3, 3, 16, bytes(19)), "19 bytes of pixels instead of 18"),
        ((1, MAX_PIXELS + 1, 3, 16, b""), "too large: more than 150 megapixels"),
        *(
            ((*BLACK[:i], None, *BLACK[i + 1 :]), "no image: one of its fields is null")
            for i in range(5)
        ),
    ],
)
def test_what_has_no_pixels_says_why(changed: tuple, reason: str) -> None:
    for call in (rgb_pixels, lambda *row: rgb_of_size(*row, size=(5, 5), resampling="area")):
        with pytest.raises(UnreadableImage) as caught:
            call(*changed)
        assert caught.value.reason == reason
