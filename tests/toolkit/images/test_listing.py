"""Listing and mirroring, on a real MinIO."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from toolkit.errors import RequestError
from toolkit.images.listing import ImageObject, evenly_spaced, list_images, mirror_folder

if TYPE_CHECKING:
    from toolkit.storage import Location, Storage


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with two labels, three images and a text file."""
    root = tmp_path / "fruits"
    for name in ("Training/Banana/1 é.jpg", "Training/Banana/2.PNG", "Test/Apple Red/3.jpeg"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (len(name), 9, 9)).save(path, format="PNG")
    (root / "README.txt").write_text("not an image")
    return root


@pytest.fixture
def target(storage: Storage, request: pytest.FixtureRequest) -> Location:
    """Return a prefix of this test's own."""
    return storage.location("test-listing", request.node.name)


def test_mirrored_images_have_the_label_of_their_folder(folder, storage, target) -> None:
    listing, mirrored = mirror_folder(folder, storage, location=target)
    assert [(image.label, image.origin.rpartition("/")[2]) for image in listing.images] == [
        ("Apple Red", "3.jpeg"),
        ("Banana", "1 é.jpg"),
        ("Banana", "2.PNG"),
    ]
    assert (mirrored.uploaded, listing.skipped) == (3, 1)
    assert list_images(storage, target).images == listing.images


def test_second_mirror_uploads_only_what_changed(folder, storage, target) -> None:
    mirror_folder(folder, storage, location=target)
    changed = folder / "Test/Apple Red/3.jpeg"
    content = bytearray(changed.read_bytes())
    content[-1] ^= 1  # the same size, another content
    changed.write_bytes(content)

    _, mirrored = mirror_folder(folder, storage, location=target)

    assert (mirrored.uploaded, mirrored.unchanged) == (1, 2)
    assert storage.read(target / "Test/Apple Red/3.jpeg") == content


def test_deleted_file_is_left_out_of_the_listing_and_kept_in_the_bucket(
    folder, storage, target
) -> None:
    mirror_folder(folder, storage, location=target)
    (folder / "Training/Banana/2.PNG").unlink()
    listing, mirrored = mirror_folder(folder, storage, location=target)
    assert (len(listing.images), mirrored.extra) == (2, 1)
    assert storage.exists(target / "Training/Banana/2.PNG")


def test_links_are_followed_but_a_loop_ends(folder, storage, target) -> None:
    (folder / "Linked").symlink_to(folder / "Test", target_is_directory=True)
    (folder / "Test" / "loop").symlink_to(folder, target_is_directory=True)
    listing, _ = mirror_folder(folder, storage, location=target)
    assert len(listing.images) == 3


@pytest.mark.parametrize("content", [{}, {"notes.txt": "x"}])
def test_folder_without_images_is_refused(content, storage, target, tmp_path) -> None:
    for name, text in content.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(RequestError, match="no images"):
        mirror_folder(tmp_path, storage, location=target)


def test_missing_folder_is_named(storage, target) -> None:
    with pytest.raises(RequestError, match="/no/such/folder"):
        mirror_folder(Path("/no/such/folder"), storage, location=target)


def test_name_that_is_not_utf8_is_refused(folder, storage, target) -> None:
    image = folder / "Test/Apple Red/3.jpeg"
    image.rename(image.with_name(os.fsdecode(b"\xff.jpg")))
    with pytest.raises(RequestError, match="UTF-8"):
        mirror_folder(folder, storage, location=target)


def test_empty_prefix_is_refused(storage, target) -> None:
    with pytest.raises(RequestError, match="no images below"):
        list_images(storage, target)


@pytest.mark.parametrize(("limit", "expected"), [(3, [0, 3, 6]), (99, list(range(10)))])
def test_limit_is_spread_over_the_listing(limit: int, expected: list[int]) -> None:
    images = [ImageObject(str(index), "label", 1) for index in range(10)]
    assert [int(image.origin) for image in evenly_spaced(images, limit)] == expected
