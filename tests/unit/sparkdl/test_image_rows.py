"""An image as a row, an array and a Pillow image: nothing is lost on the way."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

from toolkit.sparkdl.image.rows import (
    COLUMN_SCHEMA,
    OCV_TYPES,
    image_array,
    image_row,
    pil_image,
    pil_row,
    swap_channels,
)

CHANCE = np.random.default_rng(0)


def noise(height: int, width: int, channels: int, dtype: str = "uint8") -> np.ndarray:
    return CHANCE.integers(0, 256, (height, width, channels)).astype(dtype)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (10, 11)])
@pytest.mark.parametrize("kind", OCV_TYPES, ids=lambda kind: kind.name)
def test_array_survives_its_row(kind, size: tuple[int, int]) -> None:
    array = noise(*size, kind.nChannels, kind.dtype)
    row = image_row(array, "there")
    assert row.asDict() == {
        "origin": "there",
        "height": size[0],
        "width": size[1],
        "nChannels": kind.nChannels,
        "mode": kind.ord,
        "data": array.tobytes(),
    }
    assert list(row) == [row[name] for name in COLUMN_SCHEMA.names]  # the order of the schema
    back = image_array(row)
    assert back.dtype == kind.dtype
    assert_array_equal(back, array)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (10, 11)])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_pillow_image_survives_its_row_and_lies_there_as_opencv_has_it(mode: str, size) -> None:
    channels = len(mode)
    pixels = noise(*size, channels)
    image = Image.fromarray(pixels if channels > 1 else pixels[..., 0])
    row = pil_row(image, "there")
    assert (row.origin, row.height, row.width, row.nChannels) == ("there", *size, channels)
    assert_array_equal(
        image_array(row), pixels[..., [0, 2, 3][:1] if channels == 1 else [2, 1, 0, 3][:channels]]
    )
    back = pil_image(row.height, row.width, row.mode, row.data)
    assert back.mode == mode
    assert_array_equal(back, image)


def test_view_of_an_array_is_stored_as_it_reads() -> None:
    array = noise(6, 8, 3)[::2, ::-1, ::-1]
    assert_array_equal(image_array(image_row(array)), array)


def test_channels_swap_but_for_alpha() -> None:
    assert_array_equal(swap_channels(np.array([[[1, 2, 3, 4]]])), [[[3, 2, 1, 4]]])
    assert_array_equal(swap_channels(np.array([[[1, 2, 3]]])), [[[3, 2, 1]]])
    assert_array_equal(swap_channels(np.array([[[1]]])), [[[1]]])


def test_what_is_no_image_is_refused() -> None:
    with pytest.raises(ValueError, match=r"three axes .* \(4, 5\)"):
        image_row(np.zeros((4, 5), np.uint8))
    with pytest.raises(ValueError, match="float64"):
        image_row(np.zeros((4, 5, 3)))
    with pytest.raises(KeyError, match="2, not 1, 3 or 4"):
        image_row(np.zeros((4, 5, 2), np.uint8))
