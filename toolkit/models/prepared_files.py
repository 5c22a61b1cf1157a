"""Keeps the files of a prepared network whole: all of them or none, verified where fetched."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from toolkit.models.bucket import ModelBucket

__all__ = ["RECORD", "bucket_uri", "fetch_files", "is_whole", "new_folder", "write_record"]

RECORD = "model.json"
"""The file that describes the others, with their checksums."""


def bucket_uri(bucket: ModelBucket, key: str) -> str:
    """Return where a bucket keeps the network of this key."""
    return f"s3a://{bucket.name}/models/prepared/{key}"


def is_whole(folder: Path, files: tuple[str, ...]) -> bool:
    """Tell whether a folder has all of the files."""
    return all((folder / name).is_file() for name in files)


@contextmanager
def new_folder(folder: Path, files: tuple[str, ...]) -> Iterator[Path]:
    """Give a folder to fill, and rename it into place once it is full.

    Where another process was faster, its folder stays; one that lacks files is replaced.

    Parameters
    ----------
    folder
        The place.
    files
        What it is to hold.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        yield unfinished
        unfinished.chmod(0o755)  # mkdtemp keeps others out; executors may run as another user
        if folder.exists() and not is_whole(folder, files):
            shutil.rmtree(folder)
        try:
            unfinished.rename(folder)
        except OSError:
            if not is_whole(folder, files):
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Describe the files in a folder: what is given, and their checksums."""
    checksums = {path.name: _sha256(path) for path in sorted(folder.iterdir())}
    (folder / RECORD).write_text(json.dumps({**record, "sha256": checksums}, indent=2) + "\n")


def fetch_files(bucket: ModelBucket, folder: Path, files: tuple[str, ...]) -> bool:
    """Fetch a network from a bucket.

    Parameters
    ----------
    bucket
        Where it may be.
    folder
        Where it goes; its name is the network's key.
    files
        Names of its files.

    Returns
    -------
    bool
        False where the bucket does not hold all of it, undamaged; then nothing is left here.
    """
    try:
        with new_folder(folder, files) as unfinished:
            for name in files:
                _fetch(bucket, f"{bucket_uri(bucket, folder.name)}/{name}", unfinished / name)
            _verify(unfinished, files)
    except _NotFoundError:
        return False
    return True


class _NotFoundError(Exception):
    """The bucket does not have the network, or has a damaged copy."""


def _fetch(bucket: ModelBucket, uri: str, path: Path) -> None:
    if not bucket.fetch(uri, path):
        raise _NotFoundError


def _verify(folder: Path, files: tuple[str, ...]) -> None:
    try:
        expected = json.loads((folder / RECORD).read_text())["sha256"]
    except (ValueError, KeyError, TypeError) as exc:
        raise _NotFoundError from exc
    if expected != {name: _sha256(folder / name) for name in files if name != RECORD}:
        raise _NotFoundError


def _sha256(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
