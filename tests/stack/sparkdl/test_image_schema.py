"""`ImageSchema`: the schema, and the reader of images, on real Spark and MinIO."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import boto3
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image
from pyspark.ml.image import ImageSchema as SparkImageSchema

from toolkit.errors import RequestError
from toolkit.sparkdl import ImageSchema

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, Row, SparkSession

    from toolkit.storage import Location, Storage

INVALID = {"height": -1, "width": -1, "nChannels": -1, "mode": -1, "data": b""}


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


DOT = png(Image.new("RGB", (2, 1), (1, 2, 3)))
TREE = {
    "1.png": DOT,
    "2 no suffix": DOT,
    "sub a/3.png": DOT,
    "sub a/deep/4.png": DOT,
    "sub-b/é#%20?.png": DOT,
    ".hidden.png": DOT,
    "_SUCCESS": b"",
    "_temporary/5.png": DOT,
    "sub a/.git/6.png": DOT,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("read images") / "tree"
    for name, content in TREE.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return root


@pytest.fixture(scope="module")
def prefix(storage: Storage) -> Location:
    location = storage.location("test-read-images", "tree")
    for name, content in TREE.items():
        storage.write(location / name, content)
    return location


@pytest.fixture(scope="module", params=[pytest.param("disk", marks=pytest.mark.slow), "store"])
def root(request: pytest.FixtureRequest) -> str:
    """Return where the tree is: on the disk, and in the store."""
    if request.param == "disk":
        return str(request.getfixturevalue("folder"))
    return request.getfixturevalue("prefix").uri


def images(frame: DataFrame) -> list[Row]:
    return [row.image for row in frame.collect()]


def names(frame: DataFrame, root: str) -> list[str]:
    """Return the origins below the root, which begin as origins do."""
    beginning = root if "://" in root else f"file://{root}"
    origins = [image.origin for image in images(frame)]
    assert all(origin.startswith(f"{beginning}/") for origin in origins)
    return [origin.removeprefix(f"{beginning}/") for origin in origins]


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


@pytest.mark.slow
def test_array_and_row_convert_on_executors(spark: SparkSession) -> None:
    array = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)

    def there_and_back(_: int) -> bool:
        return bool((ImageSchema.toNDArray(ImageSchema.toImage(array)) == array).all())

    assert spark.sparkContext.parallelize([0], 1).map(there_and_back).collect() == [True]


@pytest.mark.parametrize(
    ("array", "error"),
    [
        ([[[1]]], TypeError),
        (np.zeros((4, 5), np.uint8), ValueError),
        (np.zeros((4, 5, 2), np.uint8), ValueError),
    ],
)
def test_what_is_no_image_becomes_no_row(array: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        ImageSchema.toImage(array)


@pytest.mark.slow
def test_what_is_no_row_becomes_no_array(spark: SparkSession) -> None:
    with pytest.raises(TypeError):
        ImageSchema.toNDArray("a text")
    with pytest.raises(ValueError, match="attributes"):
        ImageSchema.toNDArray(spark.range(1).first())


def test_folder_is_read_without_those_below_it(spark: SparkSession, root: str) -> None:
    frame = ImageSchema.readImages(root)
    assert frame.schema == SparkImageSchema.imageSchema
    assert names(frame, root) == ["1.png", "2 no suffix"]
    assert names(ImageSchema.readImages(f"{root}/"), root) == ["1.png", "2 no suffix"]
    assert all(image.data == bytes([3, 2, 1, 3, 2, 1]) for image in images(frame))


@pytest.mark.slow
def test_folders_below_are_read_when_asked_for_but_hidden_ones(
    spark: SparkSession, root: str
) -> None:
    assert names(ImageSchema.readImages(root, recursive=True), root) == [
        "1.png",
        "2 no suffix",
        "sub a/3.png",
        "sub a/deep/4.png",
        "sub-b/é#%20?.png",
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pattern", "recursive", "expected"),
    [
        ("1.png", False, ["1.png"]),
        ("*.png", False, ["1.png"]),
        ("sub*", False, ["sub a/3.png", "sub-b/é#%20?.png"]),
        ("sub[ ]a", True, ["sub a/3.png", "sub a/deep/4.png"]),
        ("*/*.png", False, ["sub a/3.png", "sub-b/é#%20?.png"]),
        ("?ub a/deep/4*", False, ["sub a/deep/4.png"]),
        (
            "{1.png,*.png,none,sub{ a/deep,-b}}",
            False,
            ["1.png", "sub a/deep/4.png", "sub-b/é#%20?.png"],
        ),
    ],
)
def test_file_or_pattern(
    spark: SparkSession,
    root: str,
    pattern: str,
    recursive: bool,  # noqa: FBT001
    expected: list[str],
) -> None:
    frame = ImageSchema.readImages(f"{root}/{pattern}", recursive=recursive)
    assert names(frame, root) == expected


@pytest.mark.slow
def test_one_place_has_several_ways_to_write_it(
    spark: SparkSession, folder: Path, prefix: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    for path in (f"file:{folder}", f"file://{folder}", "tree"):
        assert names(ImageSchema.readImages(path), str(folder)) == ["1.png", "2 no suffix"]
    s3 = prefix.uri.replace("s3a://", "s3://")
    assert names(ImageSchema.readImages(s3), prefix.uri) == ["1.png", "2 no suffix"]


@pytest.mark.parametrize("path", ["nothing", "nothing/*", "1.png/*", "*.tiff"])
def test_nothing_at_the_path_is_said_at_once(spark: SparkSession, root: str, path: str) -> None:
    with pytest.raises(RequestError, match=re.escape(f"nothing at {root}/{path}.")):
        ImageSchema.readImages(f"{root}/{path}")


def test_other_stores_are_refused(spark: SparkSession) -> None:
    with pytest.raises(RequestError, match="hdfs"):
        ImageSchema.readImages("hdfs://host/images")


def test_folder_without_files_gives_no_rows(
    spark: SparkSession, tmp_path: Path, storage: Storage
) -> None:
    (tmp_path / "_hidden").touch()
    assert images(ImageSchema.readImages(str(tmp_path))) == []
    storage.write(storage.location("test-read-images", "nested", "sub", "1.png"), DOT)
    nested = storage.location("test-read-images", "nested").uri
    assert images(ImageSchema.readImages(nested)) == []


@pytest.mark.slow
def test_empty_objects_that_stand_for_folders_are_no_images(
    spark: SparkSession, storage: Storage
) -> None:
    key, secret = storage.settings.credentials()
    client = boto3.client(
        "s3",
        endpoint_url=storage.settings.endpoint,
        region_name=storage.settings.region,
        aws_access_key_id=key,
        aws_secret_access_key=secret,
    )
    for name in ("marked/", "marked/sub/"):
        client.put_object(Bucket=storage.name, Key=f"test-read-images/{name}", Body=b"")
    marked = storage.location("test-read-images", "marked")
    storage.write(marked / "sub/1.png", DOT)
    assert names(ImageSchema.readImages(marked.uri, recursive=True), marked.uri) == ["sub/1.png"]
    assert names(ImageSchema.readImages(marked.uri), marked.uri) == []


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of images of several modes."""
    chance = np.random.default_rng(0)
    rgb = chance.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    gray = chance.integers(0, 256, (6, 8), dtype=np.uint8)
    alpha = chance.integers(0, 256, (6, 8, 4), dtype=np.uint8)
    root = tmp_path_factory.mktemp("kinds")
    Image.fromarray(gray).save(root / "gray.png")
    Image.fromarray(gray.astype(np.uint16) * 257).save(root / "gray16.png")
    Image.merge("LA", [Image.fromarray(gray)] * 2).save(root / "gray-alpha.png")
    Image.fromarray(rgb).save(root / "rgb.png")
    Image.fromarray(alpha).save(root / "rgba.png")
    Image.fromarray(rgb).convert("CMYK").save(root / "cmyk.tif")
    for name, array in {"rgb": rgb, "gray": gray, "alpha": alpha}.items():
        np.save(root / f"_{name}.npy", array)
    return root


@pytest.mark.slow
def test_gray_colour_and_alpha_have_their_channels(spark: SparkSession, kinds: Path) -> None:
    found = {Path(image.origin).name: image for image in images(ImageSchema.readImages(str(kinds)))}
    rgb, gray, alpha = (np.load(kinds / f"_{name}.npy") for name in ("rgb", "gray", "alpha"))
    for name, mode, expected in [
        ("gray.png", 0, gray[..., None]),
        ("gray16.png", 0, gray[..., None]),
        ("gray-alpha.png", 0, gray[..., None]),
        ("rgb.png", 16, rgb[..., ::-1]),
        ("cmyk.tif", 16, rgb[..., ::-1]),
        ("rgba.png", 24, alpha[..., [2, 1, 0, 3]]),
    ]:
        image = found[name]
        assert (image.mode, image.nChannels) == (mode, expected.shape[2]), name
        assert_array_equal(ImageSchema.toNDArray(image), expected, err_msg=name)


def test_failures_are_kept_as_invalid_images_or_dropped(
    spark: SparkSession, mixed_folder: Path, bad_files: dict[str, bytes]
) -> None:
    path = f"{mixed_folder}/*"
    kept = images(ImageSchema.readImages(path))
    bad = [image.asDict() for image in kept if image.mode == -1]
    assert bad == [
        {"origin": f"file://{mixed_folder}/Bad/{name}", **INVALID} for name in sorted(bad_files)
    ]
    dropped = images(ImageSchema.readImages(path, dropImageFailures=True))
    assert dropped == [image for image in kept if image.mode != -1]
    assert len(dropped) == 24


@pytest.mark.slow
def test_sample_images_are_as_sparks_own_source_reads_them(
    spark: SparkSession, mixed_folder: Path
) -> None:
    options = {"recursiveFileLookup": True, "dropInvalid": True}
    theirs = spark.read.format("image").options(**options).load(str(mixed_folder))
    # Spark writes the characters of an origin as in a URL, other than Spark 2's `readImages` did.
    expected = {unquote(image.origin): image for image in images(theirs)}
    ours = images(ImageSchema.readImages(str(mixed_folder), recursive=True, dropImageFailures=True))
    assert {image.origin for image in ours} == expected.keys()
    for image in ours:
        other = expected[image.origin]
        assert image[1:5] == other[1:5]
        # Two JPEG decoders: they may round otherwise.
        difference = ImageSchema.toNDArray(image).astype(int) - ImageSchema.toNDArray(other)
        assert np.abs(difference).mean() < 1
        assert np.abs(difference).max() <= 12


@pytest.mark.slow
def test_sample_is_a_part_and_always_the_same(spark: SparkSession, tmp_path: Path) -> None:
    for number in range(200):
        (tmp_path / f"{number:03}").touch()

    def sample(ratio: float, seed: int = 0) -> set[str]:
        frame = ImageSchema.readImages(str(tmp_path), sampleRatio=ratio, seed=seed)
        return {image.origin for image in images(frame)}

    half = sample(0.5)
    assert 70 < len(half) < 130
    assert sample(0.5) == half
    assert sample(0.5, seed=-1) != half
    assert sample(0.25) < half
    assert sample(0) == set()
    assert len(sample(1)) == 200


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"sampleRatio": 1.5}, r"sampleRatio is 1\.5; it should be from 0 to 1"),
        ({"sampleRatio": -0.1}, r"sampleRatio is -0\.1"),
        ({"sampleRatio": float("nan")}, "sampleRatio is nan"),
        ({"numPartitions": 0}, "numPartitions is 0; it should be at least 1, or -1"),
        ({"numPartitions": -2}, "numPartitions is -2"),
    ],
)
def test_number_out_of_its_range_is_refused(spark, folder: Path, options, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        ImageSchema.readImages(str(folder), **options)


@pytest.mark.slow
def test_partitions_are_as_many_as_asked_for(spark: SparkSession, root: str) -> None:
    frame = ImageSchema.readImages(root, recursive=True)
    assert frame.rdd.getNumPartitions() == spark.sparkContext.defaultParallelism
    for number in (1, 7):
        frame = ImageSchema.readImages(root, recursive=True, numPartitions=number)
        assert frame.rdd.getNumPartitions() == number
        assert len(images(frame)) == 5


@pytest.mark.slow
def test_files_are_listed_at_the_call_and_read_by_an_action(
    spark: SparkSession, tmp_path: Path
) -> None:
    for name in ("1.png", "2.png"):
        (tmp_path / name).write_bytes(b"not yet")
    frame = ImageSchema.readImages(str(tmp_path))
    (tmp_path / "1.png").write_bytes(DOT)
    (tmp_path / "3.png").write_bytes(DOT)
    assert [image.mode for image in images(frame)] == [16, -1]


@pytest.mark.slow
def test_image_that_has_gone_since_it_was_listed_fails_nothing(
    spark: SparkSession, tmp_path: Path
) -> None:
    for name in ("gone.png", "there.png"):
        (tmp_path / name).write_bytes(DOT)
    frame = ImageSchema.readImages(str(tmp_path))
    (tmp_path / "gone.png").unlink()
    assert [image.mode for image in images(frame)] == [-1, 16]


@pytest.mark.slow
def test_rows_have_their_places_whenever_they_are_read(
    spark: SparkSession, mixed_folder: Path
) -> None:
    frame = ImageSchema.readImages(str(mixed_folder), recursive=True, numPartitions=3)
    first, second = (frame.select("image.origin").collect() for _ in range(2))
    assert first == second
    assert len(first) == 27


def test_keys_of_the_store_do_not_stand_in_sparks_plan(
    spark: SparkSession, storage: Storage, prefix: Location
) -> None:
    plan = ImageSchema.readImages(prefix.uri)._jdf.queryExecution().toString()
    for key in storage.settings.credentials():
        assert key not in plan
