"""Listing and mirroring, on a real MinIO."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from toolkit.errors import RequestError
from toolkit.images import listing as module
from toolkit.images.listing import list_folder, list_images, mirror_folder

if TYPE_CHECKING:
    from toolkit.storage import Location, Storage

# In the order of S3: by the bytes of UTF-8, a folder with its slash.
AWKWARD_NAMES = [
    "A/1.jpg",
    "a b/1.jpg",
    "a-b/1.jpg",
    "a.jpg",
    "a/1.jpg",
    "a/2 #?%.jpg",
    "a/b.jpg",
    "a/b/1.jpg",
    "a0.jpg",
    "a0/1.jpg",
    "é/1.jpg",
    "豈.jpg",
    "😀.jpg",  # after 豈, which a comparison by UTF-16 would put last
]


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
def awkward(tmp_path: Path) -> Path:
    """Return a folder whose names try the order; the content of a file is its name."""
    return fill(tmp_path / "awkward", AWKWARD_NAMES)


@pytest.fixture
def target(storage: Storage, request: pytest.FixtureRequest) -> Location:
    """Return a prefix of this test's own."""
    return storage.location("test-listing", request.node.name)


def fill(root: Path, names: list[str]) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    return root


def keys(images, below: Location) -> list[str]:
    return [image.origin.removeprefix(f"{below.uri}/") for image in images]


def test_mirrored_images_have_the_label_of_their_folder(folder, storage, target) -> None:
    listing, mirrored = mirror_folder(folder, storage, location=target)
    assert [(image.label, image.origin.rpartition("/")[2]) for image in listing] == [
        ("Apple Red", "3.jpeg"),
        ("Banana", "1 é.jpg"),
        ("Banana", "2.PNG"),
    ]
    assert (mirrored.uploaded, listing.skipped) == (3, 1)
    assert list(list_images(storage, target)) == list(listing)


def test_listing_of_a_prefix_tells_what_its_images_sum_up_to(folder, storage, target) -> None:
    mirrored, _ = mirror_folder(folder, storage, location=target)
    storage.write(target / "Test" / "notes.txt", b"not an image")
    listing = list_images(storage, target)
    assert (len(listing), listing.skipped, listing.labels) == (3, 1, 2)
    assert listing.bytes == sum(
        path.stat().st_size for path in folder.rglob("*") if path.suffix not in {"", ".txt"}
    )
    assert listing.location == target
    assert listing.fingerprint == mirrored.fingerprint


def test_fingerprint_covers_name_size_and_content(storage, target) -> None:
    known = set()
    for name, content in [("a/1.jpg", b"xy"), ("a/1.jpg", b"xz"), ("a/1.jpg", b"x")]:
        storage.write(target / name, content)
        known.add(list_images(storage, target).fingerprint)
    storage.write(target / "a/2.jpg", b"xy")
    known.add(list_images(storage, target).fingerprint)
    assert len(known) == 4
    assert all(len(fingerprint) == 64 for fingerprint in known)


def test_second_mirror_uploads_only_what_changed(folder, storage, target) -> None:
    mirror_folder(folder, storage, location=target)
    changed = folder / "Test/Apple Red/3.jpeg"
    content = bytearray(changed.read_bytes())
    content[-1] ^= 1  # the same size, another content
    changed.write_bytes(content)

    told: list[int] = []
    _, mirrored = mirror_folder(folder, storage, location=target, on_progress=told.append)

    assert (mirrored.uploaded, mirrored.unchanged, told) == (1, 2, [1])
    assert storage.read(target / "Test/Apple Red/3.jpeg") == content


def test_folder_and_bucket_are_in_the_same_order(awkward, storage, target) -> None:
    listing, mirrored = mirror_folder(awkward, storage, location=target)
    assert keys(listing, target) == AWKWARD_NAMES
    assert keys(list_images(storage, target), target) == AWKWARD_NAMES
    assert mirrored == module.Mirrored(len(AWKWARD_NAMES), 0, 0)
    again, mirrored = mirror_folder(awkward, storage, location=target)
    assert mirrored == module.Mirrored(0, len(AWKWARD_NAMES), 0)
    assert list(again) == list(listing)


def test_folder_is_listed_as_it_would_be_mirrored(awkward, storage, target) -> None:
    listed = list_folder(awkward, target)
    assert not list(storage.objects(target))
    mirrored, _ = mirror_folder(awkward, storage, location=target)
    assert list(listed) == list(mirrored)
    assert listed.fingerprint == mirrored.fingerprint
    assert (listed.location, listed.labels, listed.bytes) == (
        *(mirrored.location, mirrored.labels, mirrored.bytes),
    )


@pytest.mark.parametrize("gone", [slice(None, 3), slice(4, 8), slice(-3, None), slice(1, None, 2)])
def test_what_is_only_in_the_bucket_is_extra_wherever_it_is(awkward, storage, target, gone) -> None:
    mirror_folder(awkward, storage, location=target)
    for name in AWKWARD_NAMES[gone]:
        (awkward / name).unlink()
    fill(awkward, ["0.jpg", "a/1 new.jpg", "😀😀.jpg"])
    left = [name for name in AWKWARD_NAMES if name not in AWKWARD_NAMES[gone]]

    listing, mirrored = mirror_folder(awkward, storage, location=target)

    assert mirrored == module.Mirrored(3, len(left), len(AWKWARD_NAMES[gone]))
    assert keys(listing, target) == sorted([*left, "0.jpg", "a/1 new.jpg", "😀😀.jpg"])
    assert set(listing) < set(list_images(storage, target))


def test_deleted_file_is_left_out_of_the_listing_and_kept_in_the_bucket(
    folder, storage, target
) -> None:
    mirror_folder(folder, storage, location=target)
    (folder / "Training/Banana/2.PNG").unlink()
    listing, mirrored = mirror_folder(folder, storage, location=target)
    assert (len(listing), mirrored.extra) == (2, 1)
    assert storage.exists(target / "Training/Banana/2.PNG")


def test_links_are_followed_but_a_loop_ends(folder, storage, target) -> None:
    (folder / "Linked").symlink_to(folder / "Test", target_is_directory=True)
    (folder / "Test" / "loop").symlink_to(folder, target_is_directory=True)
    (folder / "itself.jpg").symlink_to(folder / "itself.jpg")
    (folder / "nowhere.jpg").symlink_to(folder / "no such file.jpg")
    listing, _ = mirror_folder(folder, storage, location=target)
    # The README, the link to itself and that to nothing are counted.
    assert (len(listing), listing.skipped) == (3, 3)


@pytest.mark.parametrize("content", [{}, {"notes.txt": "x"}])
def test_folder_without_images_is_refused(content, storage, target, tmp_path) -> None:
    for name, text in content.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(RequestError, match="no images"):
        mirror_folder(tmp_path, storage, location=target)


def test_missing_folder_is_named(storage, target) -> None:
    with pytest.raises(RequestError, match="/no/such/folder"):
        mirror_folder(Path("/no/such/folder"), storage, location=target)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_file_that_may_not_be_read_is_named(folder, storage, target) -> None:
    (folder / "Training/Banana/2.PNG").chmod(0)
    with pytest.raises(RequestError, match=r"2\.PNG can't be read: Permission denied"):
        mirror_folder(folder, storage, location=target)


def test_file_that_disappears_is_named(folder, storage, target, monkeypatch) -> None:
    def walk(*_: object) -> list[str]:
        return ["Test/Apple Red/3.jpeg", "Test/gone.jpg"]

    monkeypatch.setattr(module, "_files_below", walk)
    with pytest.raises(RequestError, match=r"Test/gone\.jpg can't be read: No such file"):
        mirror_folder(folder, storage, location=target)


def test_name_that_is_not_utf8_is_refused(folder, storage, target) -> None:
    image = folder / "Test/Apple Red/3.jpeg"
    image.rename(image.with_name(os.fsdecode(b"\xff.jpg")))
    with pytest.raises(RequestError, match="UTF-8"):
        mirror_folder(folder, storage, location=target)


def test_empty_prefix_is_refused(storage, target) -> None:
    with pytest.raises(RequestError, match="no images below"):
        list_images(storage, target)
