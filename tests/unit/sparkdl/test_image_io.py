"""The functions of SparkDL's `imageIO` on arrays, bytes and Pillow images."""

from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image
from pyspark.sql import Row

from toolkit.images.decode import UnreadableImage
from toolkit.sparkdl import ImageSchema, imageIO

CHANCE = np.random.default_rng(0)
BGR = CHANCE.integers(0, 256, (10, 11, 3), dtype=np.uint8)
GRAY = CHANCE.integers(0, 256, (10, 11, 1), dtype=np.uint8)
BGRA = CHANCE.integers(0, 256, (10, 11, 4), dtype=np.uint8)
RGB_PIL = Image.fromarray(np.ascontiguousarray(BGR[..., ::-1]))
GRAY_PIL = Image.fromarray(GRAY[..., 0])
RGBA_PIL = Image.fromarray(BGRA[..., [2, 1, 0, 3]])
PAIRS = [(BGR, RGB_PIL), (GRAY, GRAY_PIL), (BGRA, RGBA_PIL)]


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "number", "channels", "dtype"),
    [
        ("CV_8UC1", 0, 1, "uint8"),
        ("CV_32FC1", 5, 1, "float32"),
        ("CV_8UC3", 16, 3, "uint8"),
        ("CV_32FC3", 21, 3, "float32"),
        ("CV_8UC4", 24, 4, "uint8"),
        ("CV_32FC4", 29, 4, "float32"),
    ],
)
def test_types_are_found_by_name_number_and_image(name, number, channels, dtype) -> None:
    kind = imageIO.imageTypeByName(name)
    assert (kind.name, kind.ord, kind.nChannels, kind.dtype) == (name, number, channels, dtype)
    assert imageIO.imageTypeByOrdinal(number) == kind
    image = imageIO.imageArrayToStruct(np.zeros((2, 3, channels), dtype))
    assert imageIO.imageType(image) == kind


def test_unknown_types_are_key_errors() -> None:
    with pytest.raises(KeyError, match="CV_64FC3"):
        imageIO.imageTypeByName("CV_64FC3")
    with pytest.raises(KeyError, match="ordinal -1"):
        imageIO.imageTypeByOrdinal(-1)
    with pytest.raises(KeyError, match="ordinal 6"):
        imageIO.imageType(Row(mode=6))


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("array", [BGR, GRAY, BGRA], ids=["BGR", "gray", "BGRA"])
def test_array_and_struct(array: np.ndarray, dtype: str) -> None:
    array = array.astype(dtype)
    struct = imageIO.imageArrayToStruct(array, origin="there")
    assert struct.origin == "there"
    assert struct.data == array.tobytes()
    assert_array_equal(imageIO.imageStructToArray(struct), array)
    assert imageIO.imageArrayToStruct(array[None], origin="there") == struct


@pytest.mark.parametrize(
    ("array", "error", "text"),
    [
        (np.zeros((2, 4, 5, 3), np.uint8), ValueError, "should be 1"),
        (np.zeros((4, 5), np.uint8), ValueError, "three axes"),
        (np.zeros((4, 5, 3), np.int64), ValueError, "int64"),
        (np.zeros((4, 5, 5), np.uint8), KeyError, "5, not 1, 3 or 4"),
    ],
)
def test_arrays_that_are_no_images_are_refused(array, error, text: str) -> None:
    with pytest.raises(error, match=text):
        imageIO.imageArrayToStruct(array)


@pytest.mark.parametrize(("array", "pil"), PAIRS, ids=["RGB", "L", "RGBA"])
def test_pillow_and_struct(array: np.ndarray, pil: Image.Image) -> None:
    assert_array_equal(imageIO.PIL_to_imageStruct(pil), array)
    back = imageIO.imageStructToPIL(imageIO.imageArrayToStruct(array))
    assert back.mode == pil.mode
    assert_array_equal(back, pil)


@pytest.mark.parametrize(
    ("mode", "channels"), [("1", 1), ("LA", 1), ("I", 1), ("P", 3), ("CMYK", 3), ("HSV", 3)]
)
def test_other_modes_of_pillow_are_converted(mode: str, channels: int) -> None:
    array = imageIO.PIL_to_imageStruct(RGB_PIL.convert(mode))
    assert array.shape == (10, 11, channels)
    assert array.dtype == np.uint8


def test_floating_point_struct_is_no_pillow_image() -> None:
    with pytest.raises(ValueError, match="CV_32FC3"):
        imageIO.imageStructToPIL(imageIO.imageArrayToStruct(BGR.astype("float32")))
    with pytest.raises(KeyError):
        imageIO.imageStructToPIL(Row(mode=-1))


def test_channel_order_is_fixed() -> None:
    assert_array_equal(imageIO.fixColorChannelOrdering("RGB", np.asarray(RGB_PIL)), BGR)
    assert_array_equal(imageIO.fixColorChannelOrdering("RGB", np.asarray(RGBA_PIL)), BGRA)
    assert imageIO.fixColorChannelOrdering("BGR", BGR) is BGR
    assert imageIO.fixColorChannelOrdering("L", GRAY) is GRAY
    assert imageIO.fixColorChannelOrdering("L", GRAY[..., 0]).shape == (10, 11)
    with pytest.raises(ValueError, match=r"\(10, 11, 3\)"):
        imageIO.fixColorChannelOrdering("L", BGR)
    with pytest.raises(ValueError, match="'GBR', expected one of L, RGB, BGR"):
        imageIO.fixColorChannelOrdering("GBR", BGR)


@pytest.mark.parametrize(("array", "pil"), PAIRS, ids=["RGB", "L", "RGBA"])
def test_decoders_give_the_channels_of_an_image_column(array, pil: Image.Image) -> None:
    assert_array_equal(imageIO.PIL_decode(png(pil)), array)
    small = imageIO.PIL_decode_and_resize((5, 4))(png(pil))  # width, height: Pillow's order
    nearest = pil.resize((5, 4), Image.Resampling.NEAREST)
    assert_array_equal(small, imageIO.PIL_to_imageStruct(nearest))


def test_what_is_no_image_is_not_decoded() -> None:
    with pytest.raises(UnreadableImage):
        imageIO.PIL_decode(b"text")


@pytest.mark.parametrize(("array", "pil"), PAIRS, ids=["RGB", "L", "RGBA"])
def test_resizing_takes_height_and_width(array, pil: Image.Image) -> None:
    image = imageIO.imageArrayToStruct(array, origin="there")
    small = imageIO.createResizeImageUDF([4, 5]).func(image)
    assert (small.origin, small.height, small.width) == ("there", 4, 5)
    nearest = pil.resize((5, 4), Image.Resampling.NEAREST)
    assert_array_equal(imageIO.imageStructToArray(small), imageIO.PIL_to_imageStruct(nearest))
    assert imageIO.createResizeImageUDF((10, 11)).func(image) is image
    swapped = imageIO.createResizeImageUDF((11, 10)).func(image)
    assert (swapped.height, swapped.width) == (11, 10)


def test_size_is_two_numbers() -> None:
    with pytest.raises(ValueError, match=r"\[1, 2, 3\]"):
        imageIO.createResizeImageUDF([1, 2, 3])


def test_what_cannot_be_resized_becomes_null() -> None:
    resize = imageIO.createResizeImageUDF((4, 5)).func
    float_image = imageIO.imageArrayToStruct(BGR.astype("float32"), "float")
    fields = Row(*ImageSchema.imageFields)
    for image in (
        None,
        float_image,
        fields("undecoded", -1, -1, -1, -1, bytearray()),
        fields("short", 10, 11, 3, 16, bytearray(7)),
    ):
        assert resize(image) is None
