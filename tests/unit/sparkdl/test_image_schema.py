"""`ImageSchema`: rows of arrays and of image files, and which files of a disk are read."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image
from pyspark.sql import Row

from tests.support.image_tree import NOTHING, PATTERNS, TOP, TREE, check_nothing, found
from toolkit.errors import RequestError
from toolkit.sparkdl import ImageSchema
from toolkit.sparkdl.image.reading import SourceFile, find_files, sample_files
from toolkit.sparkdl.image.schema import _decoder

if TYPE_CHECKING:
    from pathlib import Path

INVALID = {"height": -1, "width": -1, "nChannels": -1, "mode": -1, "data": b""}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("read images") / "tree"
    for name, content in TREE.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return root


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


def test_what_is_no_row_becomes_no_array() -> None:
    with pytest.raises(TypeError):
        ImageSchema.toNDArray("a text")
    with pytest.raises(ValueError, match="attributes"):
        ImageSchema.toNDArray(Row(id=0))


@pytest.mark.parametrize(("pattern", "recursive", "names"), PATTERNS)
def test_files_of_a_folder_or_a_pattern_are_found(
    folder: Path,
    pattern: str,
    recursive: bool,  # noqa: FBT001
    names: list[str],
) -> None:
    path = f"{folder}{pattern}"
    assert found(path, below=f"file://{folder}", recursive=recursive) == names


def test_one_folder_has_several_ways_to_write_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    for path in (f"file:{folder}", f"file://{folder}", f"file://host{folder}", "tree"):
        assert found(path, below=f"file://{folder}") == TOP


@pytest.mark.parametrize("path", NOTHING)
def test_nothing_at_the_path_is_said(folder: Path, path: str) -> None:
    check_nothing(f"{folder}{path}")


def test_folder_without_files_is_something(tmp_path: Path) -> None:
    (tmp_path / "_hidden").touch()
    assert found(str(tmp_path), below="") == []


def test_other_stores_are_refused() -> None:
    with pytest.raises(RequestError, match="hdfs"):
        find_files("hdfs://host/images", recursive=False, store=lambda: None)


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
def test_number_out_of_its_range_is_refused(folder: Path, options: dict, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        ImageSchema.readImages(str(folder), **options)


def test_sample_is_a_part_and_always_the_same() -> None:
    files = [SourceFile(f"file:///folder/{number:03}", 1) for number in range(200)]

    def sample(ratio: float, seed: int = 0) -> set[SourceFile]:
        return set(sample_files(files, ratio, seed))

    half = sample(0.5)
    assert 70 < len(half) < 130
    assert sample(0.5) == half
    assert sample(0.5, seed=-1) != half
    assert sample(0.25) < half
    assert sample(0) == set()
    assert sample(1) == set(files)


CHANCE = np.random.default_rng(0)
RGB = CHANCE.integers(0, 256, (6, 8, 3), dtype=np.uint8)
GRAY = CHANCE.integers(0, 256, (6, 8), dtype=np.uint8)
ALPHA = CHANCE.integers(0, 256, (6, 8, 4), dtype=np.uint8)


@pytest.mark.parametrize(
    ("image", "kind", "mode", "expected"),
    [
        (Image.fromarray(GRAY), "png", 0, GRAY[..., None]),
        (Image.fromarray(GRAY.astype(np.uint16) * 257), "png", 0, GRAY[..., None]),
        (Image.merge("LA", [Image.fromarray(GRAY)] * 2), "png", 0, GRAY[..., None]),
        (Image.fromarray(RGB), "png", 16, RGB[..., ::-1]),
        (Image.fromarray(RGB).convert("CMYK"), "tiff", 16, RGB[..., ::-1]),
        (Image.fromarray(ALPHA), "png", 24, ALPHA[..., [2, 1, 0, 3]]),
    ],
    ids=["gray", "gray of 16 bits", "gray with alpha", "RGB", "CMYK", "RGBA"],
)
def test_gray_colour_and_alpha_have_their_channels(
    image: Image.Image, kind: str, mode: int, expected: np.ndarray
) -> None:
    file = io.BytesIO()
    image.save(file, kind)
    for drop_failures in (False, True):
        (row,) = _decoder(drop_failures=drop_failures)("file:///there", file.getvalue())
        assert (row.origin, row.mode, row.nChannels) == ("file:///there", mode, expected.shape[2])
        assert_array_equal(ImageSchema.toNDArray(row), expected)


def test_failures_are_invalid_images_or_dropped(bad_files: dict[str, bytes]) -> None:
    for name, content in bad_files.items():
        (row,) = _decoder(drop_failures=False)(name, content)
        assert row.asDict() == {"origin": name, **INVALID}
        assert _decoder(drop_failures=True)(name, content) is None
