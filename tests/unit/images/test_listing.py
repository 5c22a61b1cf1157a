"""Long listings, of a bucket that exists by name alone."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

import pytest

from toolkit.errors import JobError
from toolkit.images import listing as module
from toolkit.images.listing import ImageObject
from toolkit.storage import Location


@pytest.fixture
def target() -> Location:
    return Location("fruits", "images")


def numbered(count: int, location: Location) -> module.ImageListing:
    """Return a listing of images that are nowhere, named by their numbers."""
    images = (
        ImageObject(str(index), f"label {index % 3}", index, f"tag {index}")
        for index in range(count)
    )
    return module._listing(location, images, module._Tally(skipped=2))


@pytest.mark.parametrize(
    ("key", "is_image"),
    [
        ("a/1.jpg", True),
        ("1.JPEG", True),
        ("a/1.tar.png", True),
        ("a/.jpg", False),
        ("a/._1.jpg", False),
        ("a.jpg/1", False),
        ("a/jpg", False),
        ("a/1.jpg.txt", False),
        ("a/1.", False),
    ],
)
def test_images_are_told_by_their_suffix(key: str, is_image: bool) -> None:  # noqa: FBT001
    assert module._is_image(key) == is_image


COUNTS = [0, 1, module._BATCH_IMAGES - 1, module._BATCH_IMAGES, 2 * module._BATCH_IMAGES + 1]


@pytest.mark.parametrize("count", COUNTS)
def test_listing_gives_what_went_in_as_often_as_asked(target, count) -> None:
    listing = numbered(count, target)
    expected = [
        ImageObject(str(index), f"label {index % 3}", index, f"tag {index}")
        for index in range(count)
    ]
    assert len(listing) == count
    assert list(listing) == expected
    assert list(zip(listing, listing, strict=True)) == list(zip(expected, expected, strict=True))
    assert (listing.labels, listing.bytes) == (min(count, 3), sum(range(count)))
    text = "".join(f"{index}\0{index}\0tag {index}\0" for index in range(count))
    assert listing.fingerprint == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("count", [1, 10, 3 * module._BATCH_IMAGES])
@pytest.mark.parametrize("limit", [0, 1, 3, 99, 2_000])
def test_limit_is_spread_over_the_listing(target, count: int, limit: int) -> None:
    listing = numbered(count, target).evenly_spaced(limit)
    size = min(limit, count)
    expected = [index * count // size for index in range(size)]
    assert [int(image.origin) for image in listing] == expected
    assert (len(listing), listing.bytes) == (size, sum(expected))
    assert (listing.location, listing.skipped) == (target, 2)
    assert listing.evenly_spaced(limit).fingerprint == listing.fingerprint


@pytest.mark.parametrize("count", [256, 257, 1_000, 9_043])
def test_shifted_images_are_others_than_those_of_twice_as_many(target, count: int) -> None:
    listing = numbered(count, target)
    others = {image.origin for image in listing.evenly_spaced(128)}
    shifted = {image.origin for image in listing.evenly_spaced(64, shift=0.25)}
    assert len(shifted) == 64
    assert not shifted & others


def test_nothing_is_left_on_disk_of_a_listing_or_of_a_failed_one(
    target, tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    open_before = open_files()

    def images():
        yield from numbered(3 * module._BATCH_IMAGES, target)
        raise RuntimeError

    listing = numbered(3 * module._BATCH_IMAGES, target)
    assert list(tmp_path.iterdir()) == []
    assert open_files() == open_before + 1
    with pytest.raises(RuntimeError):
        module._listing(target, images(), module._Tally())
    del listing
    assert open_files() == open_before


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_full_disk_says_where_and_what_to_do(target, monkeypatch) -> None:
    def full(**_: object):
        return Path("/dev/full").open("r+b", buffering=0)

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(JobError, match="No space left on device") as caught:
        numbered(10, target)
    assert "TMPDIR" in caught.value.remedy
