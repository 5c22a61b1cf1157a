"""Brings files of the driver to the executors, through Spark, whatever store there is or is not."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import threading
import zipfile
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from pyspark import SparkFiles

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import IO

    from pyspark.sql import SparkSession

__all__ = ["SharedFile", "SharedFolder", "keep", "share_file", "share_folder", "zip_folder"]

_UNPACKED = ".unpacked"
_COPIED_BYTES = 1 << 20
_making_the_folder = threading.Lock()


@dataclass(frozen=True)
class SharedFile:
    """A file that every executor can read; small and picklable.

    Parameters
    ----------
    name
        Its name among Spark's files; it begins with a hash of the content.
    """

    name: str

    def path(self) -> Path:
        """Return where it is on this machine: an executor, or the driver."""
        return Path(SparkFiles.get(self.name))


@dataclass(frozen=True)
class SharedFolder:
    """A folder that every executor can read; small and picklable.

    Parameters
    ----------
    archive
        The folder, zipped.
    """

    archive: SharedFile

    def path(self) -> Path:
        """Unpack the folder on this machine, unless that is done, and return where it is."""
        archive = self.archive.path()
        folder = archive.with_name(archive.name + _UNPACKED)
        if not folder.is_dir():
            partial = Path(tempfile.mkdtemp(dir=archive.parent, prefix=f".{archive.name}-"))
            try:
                with zipfile.ZipFile(archive) as content:
                    content.extractall(partial)
                with suppress(OSError):  # another process was faster
                    partial.rename(folder)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
        return folder


def share_file(spark: SparkSession, path: Path) -> SharedFile:
    """Give a file to all executors, those too that come later.

    Parameters
    ----------
    spark
        The session.
    path
        The file; what it holds now is what executors read, even if it changes.
    """
    with path.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    kept = _kept(f"{digest}{path.suffix}", lambda partial: shutil.copyfile(path, partial))
    return _add(spark, kept)


def share_folder(spark: SparkSession, folder: Path, *, name: str) -> SharedFolder:
    """Give a folder to all executors, those too that come later.

    Parameters
    ----------
    spark
        The session.
    folder
        The folder.
    name
        What tells its content from any other.
    """
    kept = _kept(f"{name}.zip", lambda partial: _zip(folder, partial))
    return SharedFolder(_add(spark, kept))


def keep(content: bytes, *, suffix: str) -> Path:
    """Write content to a file that stays as long as this process, and return its path.

    Parameters
    ----------
    content
        The same content is the same file.
    suffix
        Ending of the file's name, with its dot.
    """
    name = f"{hashlib.sha256(content).hexdigest()}{suffix}"
    return _kept(name, lambda partial: partial.write_bytes(content))


def zip_folder(folder: Path) -> bytes:
    """Pack a folder, uncompressed; the same files make the same bytes."""
    with tempfile.TemporaryFile() as file:
        _zip(folder, file)
        file.seek(0)
        return file.read()


def _zip(folder: Path, target: Path | IO[bytes]) -> None:
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                entry = zipfile.ZipInfo(path.relative_to(folder).as_posix())
                with path.open("rb") as content, archive.open(entry, "w", force_zip64=True) as copy:
                    shutil.copyfileobj(content, copy, _COPIED_BYTES)


def _add(spark: SparkSession, kept: Path) -> SharedFile:
    if kept.name not in _names(spark.sparkContext.listFiles):
        spark.sparkContext.addFile(str(kept))
    return SharedFile(kept.name)


def _names(uris: Iterable[str]) -> set[str]:
    return {uri.rpartition("/")[2] for uri in uris}


def _kept(name: str, write: Callable[[Path], object]) -> Path:
    """Write a file of this name, unless it is there."""
    with _making_the_folder:  # of two threads only one makes it
        path = Path(_temporary().name) / name
    if not path.is_file():
        partial = path.with_name(f".{name}.{threading.get_ident()}")
        write(partial)
        partial.replace(path)
    return path


@cache
def _temporary() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="toolkit-sparkdl-")
