"""The functions of SparkDL's `imageIO`, on arrays, on Pillow images and on real Spark."""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image
from pyspark.sql import Row
from pyspark.sql.functions import col, udf

from toolkit.errors import RequestError
from toolkit.images.decode import UnreadableImage
from toolkit.sparkdl import ImageSchema, imageIO

if TYPE_CHECKING:
    from pathlib import Path

    from pyspark.sql import SparkSession

    from toolkit.storage import Storage

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
def test_resizing_takes_height_and_width(spark: SparkSession, array, pil: Image.Image) -> None:
    image = imageIO.imageArrayToStruct(array, origin="there")
    small = imageIO.createResizeImageUDF([4, 5]).func(image)
    assert (small.origin, small.height, small.width) == ("there", 4, 5)
    nearest = pil.resize((5, 4), Image.Resampling.NEAREST)
    assert_array_equal(imageIO.imageStructToArray(small), imageIO.PIL_to_imageStruct(nearest))
    assert imageIO.createResizeImageUDF((10, 11)).func(image) is image
    swapped = imageIO.createResizeImageUDF((11, 10)).func(image)
    assert (swapped.height, swapped.width) == (11, 10)


def test_size_is_two_numbers(spark: SparkSession) -> None:
    with pytest.raises(ValueError, match=r"\[1, 2, 3\]"):
        imageIO.createResizeImageUDF([1, 2, 3])


@pytest.mark.slow
def test_what_cannot_be_resized_becomes_null(spark: SparkSession) -> None:
    good = imageIO.imageArrayToStruct(BGR, "good")
    float_image = imageIO.imageArrayToStruct(BGR.astype("float32"), "float")
    undecoded = Row("undecoded", -1, -1, -1, -1, bytearray())
    short = Row("short", 10, 11, 3, 16, bytearray(7))
    rows = [(image,) for image in (good, None, float_image, undecoded, short)]
    frame = spark.createDataFrame(rows, ImageSchema.imageSchema)
    resized = frame.select(imageIO.createResizeImageUDF((4, 5))("image").alias("image"))
    assert resized.schema == ImageSchema.imageSchema
    found = [row.image for row in resized.collect()]
    assert found[1:] == [None] * 4
    assert found[0][:5] == ("good", 4, 5, 3, 16)
    assert len(found[0].data) == 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("custom")
    (root / "1.png").write_bytes(png(RGB_PIL))
    (root / "2.png").write_bytes(png(GRAY_PIL))
    (root / "3 bad.png").write_bytes(b"badImageData")
    return root


@pytest.fixture(scope="module", params=["disk", "store"])
def place(request: pytest.FixtureRequest, folder: Path, storage: Storage) -> tuple[str, str]:
    """Return a path of the files, and how their URIs begin: on the disk, and in the store."""
    if request.param == "disk":
        return str(folder), f"file://{folder}"
    prefix = storage.location("test-image-io")
    for file in folder.iterdir():
        storage.write(prefix / file.name, file.read_bytes())
    return prefix.uri, prefix.uri


@pytest.mark.slow
def test_images_are_read_by_a_custom_function(spark: SparkSession, place) -> None:
    path, beginning = place
    frame = imageIO.readImagesWithCustomFn(path, imageIO.PIL_decode, numPartition=2)
    assert frame.schema == ImageSchema.imageSchema
    assert frame.rdd.getNumPartitions() == 2
    found = {row.image.origin: row.image for row in frame.collect() if row.image}
    assert sorted(found) == [f"{beginning}/1.png", f"{beginning}/2.png"]
    assert frame.filter(col("image").isNull()).count() == 1
    assert_array_equal(imageIO.imageStructToArray(found[f"{beginning}/1.png"]), BGR)
    assert_array_equal(imageIO.imageStructToArray(found[f"{beginning}/2.png"]), GRAY)


@pytest.mark.slow
def test_custom_function_may_give_floating_point_numbers_or_fail(
    spark: SparkSession, folder: Path
) -> None:
    def decode(content: bytes) -> np.ndarray:
        return imageIO.PIL_decode(content).astype("float32") / np.float32(255)

    first, second, third = imageIO.readImagesWithCustomFn(str(folder), decode).collect()
    assert third.image is None
    assert_array_equal(imageIO.imageStructToArray(first.image), BGR.astype("float32") / 255)
    assert second.image.mode == 5


@pytest.mark.slow
def test_functions_work_in_a_function_of_spark(spark: SparkSession, folder: Path) -> None:
    def again(image: Any):
        return imageIO.imageArrayToStruct(imageIO.imageStructToArray(image))

    frame = imageIO.readImagesWithCustomFn(str(folder), imageIO.PIL_decode).dropna()
    column_type = ImageSchema.imageSchema["image"].dataType
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        same = frame.select("image", udf(again, column_type)("image").alias("again")).collect()
    assert len(same) == 2
    for row in same:
        assert row.again[1:] == row.image[1:]


@pytest.mark.slow
def test_files_become_rows(spark: SparkSession, folder: Path, place) -> None:
    path, beginning = place
    frame = imageIO.filesToDF(spark.sparkContext, path, 3)
    assert frame.rdd.getNumPartitions() == 3
    assert frame.dtypes == [("filePath", "string"), ("fileData", "binary")]
    assert not any(field.nullable for field in frame.schema)
    found = {row.filePath: bytes(row.fileData) for row in frame.collect()}
    assert found == {f"{beginning}/{file.name}": file.read_bytes() for file in folder.iterdir()}
    default = imageIO.filesToDF(spark.sparkContext, path)
    assert default.rdd.getNumPartitions() == spark.sparkContext.defaultParallelism


def test_nothing_at_the_path_is_said_at_once(spark: SparkSession, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="nothing at"):
        imageIO.filesToDF(spark.sparkContext, str(tmp_path / "no-such"))
    with pytest.raises(RequestError, match="nothing at"):
        imageIO.readImagesWithCustomFn(str(tmp_path / "no-such"), imageIO.PIL_decode)
