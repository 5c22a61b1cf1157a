"""Which files of a store are read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import boto3
import pytest

from tests.support.image_tree import DOT, NOTHING, PATTERNS, TOP, TREE, check_nothing, found
from toolkit.sparkdl.image.reading import find_files

if TYPE_CHECKING:
    from toolkit.storage import Location, Storage


@pytest.fixture(scope="module")
def prefix(storage: Storage) -> Location:
    location = storage.location("test-find-files", "tree")
    for name, content in TREE.items():
        storage.write(location / name, content)
    return location


@pytest.mark.parametrize(("pattern", "recursive", "names"), PATTERNS)
def test_objects_of_a_prefix_or_a_pattern_are_found(
    storage: Storage,
    prefix: Location,
    pattern: str,
    recursive: bool,  # noqa: FBT001
    names: list[str],
) -> None:
    path = f"{prefix.uri}{pattern}"
    assert found(path, below=prefix.uri, recursive=recursive, store=lambda: storage) == names


def test_both_schemes_of_s3_mean_the_same(storage: Storage, prefix: Location) -> None:
    s3 = prefix.uri.replace("s3a://", "s3://")
    assert found(s3, below=prefix.uri, store=lambda: storage) == TOP


@pytest.mark.parametrize("path", NOTHING)
def test_nothing_at_the_path_is_said(storage: Storage, prefix: Location, path: str) -> None:
    check_nothing(f"{prefix.uri}{path}", store=lambda: storage)


def test_prefix_without_objects_of_its_own_is_something(storage: Storage) -> None:
    nested = storage.location("test-find-files", "nested")
    storage.write(nested / "sub/1.png", DOT)
    files, from_store = find_files(nested.uri, recursive=False, store=lambda: storage)
    assert list(files) == []
    assert from_store == storage


def test_empty_objects_that_stand_for_folders_are_no_images(storage: Storage) -> None:
    key, secret = storage.settings.credentials()
    client = boto3.client(
        "s3",
        endpoint_url=storage.settings.endpoint,
        region_name=storage.settings.region,
        aws_access_key_id=key,
        aws_secret_access_key=secret,
    )
    for name in ("marked/", "marked/sub/"):
        client.put_object(Bucket=storage.name, Key=f"test-find-files/{name}", Body=b"")
    marked = storage.location("test-find-files", "marked")
    storage.write(marked / "sub/1.png", DOT)
    for recursive, names in ((True, ["sub/1.png"]), (False, [])):
        assert (
            found(marked.uri, below=marked.uri, recursive=recursive, store=lambda: storage) == names
        )
