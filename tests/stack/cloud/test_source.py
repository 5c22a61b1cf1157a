"""The images of a promotion: in a folder, found without a network, and in a bucket of a MinIO."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from toolkit.cloud.source import find_images
from toolkit.errors import JobError, RequestError
from toolkit.extraction import list_source
from toolkit.images.listing import Mirrored, list_images
from toolkit.profiles import S3Settings
from toolkit.progress import Silent
from toolkit.storage import Location, Storage

if TYPE_CHECKING:
    from pathlib import Path

CONTENTS = {
    "Training/Banana/1 é.jpg": b"one",
    "Training/Banana/2.PNG": b"two",
    "Test/Apple Red/3.jpeg": b"three",
    "Test/Apple Red/4.jpeg": b"four",
    "top.gif": b"five",
}


@pytest.fixture
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Return a folder whose name no other test has."""
    root = tmp_path / request.node.name
    for name, content in CONTENTS.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (root / "notes.txt").write_text("no image")
    return root


@pytest.fixture
def in_bucket(storage: Storage, request: pytest.FixtureRequest) -> Location:
    where = storage.location("test-source", request.node.name)
    for name, content in CONTENTS.items():
        storage.write(where / name, content)
    return where


@pytest.fixture
def nowhere() -> Storage:
    """Return a store that nobody can reach."""
    settings = {"endpoint": "http://127.0.0.1:9", "access_key_id": "a", "secret_access_key": "b"}
    return Storage(S3Settings.model_validate(settings))


def test_images_of_a_folder_are_found_without_a_connection(folder, nowhere, monkeypatch):
    def connect(*_: object) -> None:
        raise AssertionError("somebody has opened a socket")

    monkeypatch.setattr(socket.socket, "connect", connect)
    source = find_images(str(folder), nowhere, limit=None)
    assert source.folder == folder
    assert source.uri == nowhere.location("images", folder.name).uri
    assert {source.key(image): source.read(image) for image in source.listing} == CONTENTS
    assert len(source.sample(2)) == 2


@pytest.mark.parametrize("limit", [None, 3])
def test_listing_of_a_folder_is_the_one_a_run_of_it_has(folder, storage, limit):
    found = find_images(str(folder), storage, limit=limit)
    run = list_source(str(folder), storage, limit=limit, progress=Silent())
    assert list(found.listing) == list(run)
    assert found.listing.fingerprint == run.fingerprint
    assert found.listing.location == run.location
    assert found.listing.skipped == run.skipped == 1


def test_folder_is_brought_to_where_its_listing_says(folder, storage):
    source = find_images(str(folder), storage, limit=2)
    told: list[int] = []
    assert source.bring(on_progress=told.append) == Mirrored(len(CONTENTS), 0, 0)
    assert told == list(range(1, len(CONTENTS) + 1))
    there = list_images(storage, source.listing.location)
    assert len(there) == len(CONTENTS)  # the node takes the limit, of the same listing
    assert list(there.evenly_spaced(2)) == list(source.listing)
    assert source.bring() == Mirrored(0, len(CONTENTS), 0)


def test_images_that_only_the_bucket_has_are_told(folder, storage):
    source = find_images(str(folder), storage, limit=None)
    storage.write(source.listing.location / "Training/Banana/0.jpg", b"old")
    assert source.bring() == Mirrored(len(CONTENTS), 0, 1)


def test_images_in_a_bucket_stay_where_they_are(in_bucket, storage):
    source = find_images(in_bucket.uri, storage, limit=None)
    assert (source.folder, source.uri) == (None, in_bucket.uri)
    assert {source.key(image): source.read(image) for image in source.listing} == CONTENTS
    assert source.bring() is None


def test_keys_of_a_whole_bucket_are_whole_keys(storage):
    bucket = Location(storage.name)
    storage.write(bucket / "test-source/whole/1.jpg", b"x")
    source = find_images(f"s3://{storage.name}", storage, limit=None)
    assert "test-source/whole/1.jpg" in {source.key(image) for image in source.listing}


def test_folder_without_images_and_none_at_all_are_refused(tmp_path, nowhere):
    with pytest.raises(RequestError, match="is not a folder"):
        find_images(str(tmp_path / "missing"), nowhere, limit=None)
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(RequestError, match=r"There are no images in .* \(1 other files\)"):
        find_images(str(tmp_path), nowhere, limit=None)


def test_image_that_has_gone_is_named(folder, in_bucket, storage):
    source = find_images(str(folder), storage, limit=None)
    (folder / "top.gif").unlink()
    (image,) = (each for each in source.listing if each.origin.endswith("top.gif"))
    with pytest.raises(RequestError, match=r"top\.gif can't be read: No such file"):
        source.read(image)

    source = find_images(in_bucket.uri, storage, limit=None)
    storage.delete_all(in_bucket)
    with pytest.raises(JobError, match="does not exist"):
        source.read(next(iter(source.listing)))
