"""`ImageSchema`: as Spark's own, and its reader on real Spark and MinIO."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import unquote

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from pyspark.ml.image import ImageSchema as SparkImageSchema

from tests.support.image_tree import ALL, DOT, TREE
from toolkit.errors import RequestError
from toolkit.sparkdl import ImageSchema
from toolkit.sparkdl.image.reading import SourceFile, sample_files

if TYPE_CHECKING:
    from pathlib import Path

    from pyspark.sql import DataFrame, Row, SparkSession

    from toolkit.storage import Storage

INVALID = {"height": -1, "width": -1, "nChannels": -1, "mode": -1, "data": b""}


def images(frame: DataFrame) -> list[Row]:
    return [row.image for row in frame.collect()]


def test_schema_is_sparks_own(spark: SparkSession) -> None:
    for name in ("imageSchema", "columnSchema", "ocvTypes", "imageFields", "undefinedImageType"):
        assert getattr(ImageSchema, name) == getattr(SparkImageSchema, name)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_array_and_row_are_as_sparks_own(spark: SparkSession, channels: int) -> None:
    array = np.random.default_rng(0).integers(0, 256, (4, 5, channels), dtype=np.uint8)
    row = ImageSchema.toImage(array, origin="there")
    assert row == SparkImageSchema.toImage(array, origin="there")
    assert list(row.__fields__) == ImageSchema.imageFields
    assert_array_equal(ImageSchema.toNDArray(row), array)


def test_array_and_row_convert_on_executors(spark: SparkSession) -> None:
    array = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)

    def there_and_back(_: int) -> bool:
        return bool((ImageSchema.toNDArray(ImageSchema.toImage(array)) == array).all())

    assert spark.sparkContext.parallelize([0], 1).map(there_and_back).collect() == [True]


def test_images_of_the_store_are_read_and_its_keys_stay_out_of_the_plan(
    spark: SparkSession, storage: Storage
) -> None:
    prefix = storage.location("test-read-images")
    for name, content in TREE.items():
        storage.write(prefix / name, content)
    frame = ImageSchema.readImages(prefix.uri, recursive=True)
    assert frame.schema == SparkImageSchema.imageSchema
    assert frame.rdd.getNumPartitions() == spark.sparkContext.defaultParallelism
    found = images(frame)
    assert [image.origin for image in found] == [f"{prefix.uri}/{name}" for name in ALL]
    assert all(image.data == bytes([3, 2, 1, 3, 2, 1]) for image in found)
    plan = frame._jdf.queryExecution().toString()
    for key in storage.settings.credentials():
        assert key not in plan


def test_images_of_a_folder_are_as_sparks_own_source_reads_them(
    spark: SparkSession, mixed_folder: Path, bad_files: dict[str, bytes]
) -> None:
    options = {"recursiveFileLookup": True, "dropInvalid": True}
    theirs = spark.read.format("image").options(**options).load(str(mixed_folder))
    # Spark writes the characters of an origin as in a URL, other than Spark 2's `readImages` did.
    expected = {unquote(image.origin): image for image in images(theirs)}
    kept = images(ImageSchema.readImages(f"{mixed_folder}/*"))
    bad = [image.asDict() for image in kept if image.mode == -1]
    assert bad == [
        {"origin": f"file://{mixed_folder}/Bad/{name}", **INVALID} for name in sorted(bad_files)
    ]
    ours = [image for image in kept if image.mode != -1]
    assert len(ours) == 24
    assert {image.origin for image in ours} == expected.keys()
    for image in ours:
        other = expected[image.origin]
        assert image[1:5] == other[1:5]
        # Two JPEG decoders: they may round otherwise.
        difference = ImageSchema.toNDArray(image).astype(int) - ImageSchema.toNDArray(other)
        assert np.abs(difference).mean() < 1
        assert np.abs(difference).max() <= 12


def test_nothing_at_the_path_is_said_at_once(spark: SparkSession, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="nothing at"):
        ImageSchema.readImages(f"{tmp_path}/nothing")
    with pytest.raises(RequestError, match="hdfs"):
        ImageSchema.readImages("hdfs://host/images")


def test_folder_without_files_gives_no_rows(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "_hidden").touch()
    assert images(ImageSchema.readImages(str(tmp_path))) == []


def test_rows_of_a_sample_have_their_places_whenever_they_are_read(
    spark: SparkSession, tmp_path: Path
) -> None:
    for number in range(60):
        (tmp_path / f"{number:03}").write_bytes(b"no image" if number % 9 == 8 else DOT)
    frame = ImageSchema.readImages(
        str(tmp_path), numPartitions=3, sampleRatio=0.5, seed=4, dropImageFailures=True
    )
    assert frame.rdd.getNumPartitions() == 3
    first, second = (frame.select("image.origin").collect() for _ in range(2))
    assert first == second
    good = [SourceFile(f"file://{tmp_path}/{i:03}", 0) for i in range(60) if i % 9 != 8]
    assert {row.origin for row in first} == {file.uri for file in sample_files(good, 0.5, 4)}


def test_files_are_listed_at_the_call_and_read_by_an_action(
    spark: SparkSession, tmp_path: Path
) -> None:
    for name in ("1.png", "2.png", "gone.png"):
        (tmp_path / name).write_bytes(b"not yet")
    frame = ImageSchema.readImages(str(tmp_path))
    (tmp_path / "1.png").write_bytes(DOT)
    (tmp_path / "3.png").write_bytes(DOT)
    (tmp_path / "gone.png").unlink()
    assert [image.mode for image in images(frame)] == [16, -1, -1]
