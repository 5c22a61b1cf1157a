"""The functions of SparkDL's `imageIO` that read files, on real Spark and MinIO."""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from pyspark.sql.functions import udf

from toolkit.errors import RequestError
from toolkit.sparkdl import ImageSchema, imageIO

if TYPE_CHECKING:
    from pathlib import Path

    from pyspark.sql import SparkSession

    from toolkit.storage import Location, Storage

CHANCE = np.random.default_rng(0)
BGR = CHANCE.integers(0, 256, (10, 11, 3), dtype=np.uint8)
GRAY = CHANCE.integers(0, 256, (10, 11, 1), dtype=np.uint8)


def png(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    imageIO.imageStructToPIL(imageIO.imageArrayToStruct(array)).save(buffer, "PNG")
    return buffer.getvalue()


FILES = {"1.png": png(BGR), "2.png": png(GRAY), "3 bad.png": b"badImageData"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


@pytest.fixture(scope="module")
def prefix(storage: Storage) -> Location:
    location = storage.location("test-image-io")
    for name, content in FILES.items():
        storage.write(location / name, content)
    return location


def test_images_are_read_by_a_custom_function_and_resized(
    spark: SparkSession, prefix: Location
) -> None:
    frame = imageIO.readImagesWithCustomFn(prefix.uri, imageIO.PIL_decode, numPartition=2)
    assert frame.schema == ImageSchema.imageSchema
    assert frame.rdd.getNumPartitions() == 2
    resized = frame.withColumn("small", imageIO.createResizeImageUDF((4, 5))("image"))
    assert resized.schema["small"].dataType == ImageSchema.columnSchema
    rows = resized.collect()
    found = {row.image.origin: row.image for row in rows if row.image}
    assert sorted(found) == [f"{prefix.uri}/1.png", f"{prefix.uri}/2.png"]
    assert len(rows) == 3
    assert_array_equal(imageIO.imageStructToArray(found[f"{prefix.uri}/1.png"]), BGR)
    assert_array_equal(imageIO.imageStructToArray(found[f"{prefix.uri}/2.png"]), GRAY)
    assert {row.small and row.small[:5] for row in rows} == {
        (f"{prefix.uri}/1.png", 4, 5, 3, 16),
        (f"{prefix.uri}/2.png", 4, 5, 1, 0),
        None,
    }


def test_custom_function_may_give_floating_point_numbers_or_fail_and_structs_go_on_to_functions(
    spark: SparkSession, folder: Path
) -> None:
    def decode(content: bytes) -> np.ndarray:
        return imageIO.PIL_decode(content).astype("float32") / np.float32(255)

    def copy(image: Any) -> Any:
        return image and imageIO.imageArrayToStruct(imageIO.imageStructToArray(image))

    frame = imageIO.readImagesWithCustomFn(str(folder), decode)
    column_type = ImageSchema.imageSchema["image"].dataType
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frame = frame.withColumn("copy", udf(copy, column_type)("image"))
        first, second, third = frame.collect()
    assert third.image is third["copy"] is None
    assert first.image.origin == f"file://{folder}/1.png"
    assert_array_equal(imageIO.imageStructToArray(first.image), BGR.astype("float32") / 255)
    assert second.image.mode == 5
    for row in (first, second):
        assert row["copy"][1:] == row.image[1:]


def test_files_become_rows(spark: SparkSession, folder: Path, prefix: Location) -> None:
    frame = imageIO.filesToDF(spark.sparkContext, prefix.uri, 3)
    assert frame.rdd.getNumPartitions() == 3
    assert frame.dtypes == [("filePath", "string"), ("fileData", "binary")]
    assert not any(field.nullable for field in frame.schema)
    default = imageIO.filesToDF(spark.sparkContext, str(folder))
    assert default.rdd.getNumPartitions() == spark.sparkContext.defaultParallelism
    for beginning, each in ((prefix.uri, frame), (f"file://{folder}", default)):
        found = {row.filePath: bytes(row.fileData) for row in each.collect()}
        assert found == {f"{beginning}/{name}": content for name, content in FILES.items()}


def test_nothing_at_the_path_is_said_at_once(spark: SparkSession, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="nothing at"):
        imageIO.filesToDF(spark.sparkContext, str(tmp_path / "no-such"))
    with pytest.raises(RequestError, match="nothing at"):
        imageIO.readImagesWithCustomFn(str(tmp_path / "no-such"), imageIO.PIL_decode)
