"""Files of a folder, or of an object store, as rows: read on executors, many at a time."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import chain, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
from pyspark.sql import SparkSession
from pyspark.sql.pandas.types import to_arrow_schema

from toolkit.ahead import in_order
from toolkit.errors import RequestError
from toolkit.images.listing import files_below
from toolkit.sparkdl.hadoop import session_storage
from toolkit.storage import Location, ObjectNotFound, Storage

if TYPE_CHECKING:
    from pyspark.sql import DataFrame
    from pyspark.sql.types import StructType

    from toolkit.storage import ObjectInfo

__all__ = ["SourceFile", "find_files", "read_each", "read_files", "sample_files"]

_log = logging.getLogger(__name__)

ToRow = Callable[[str, bytes], Sequence[Any] | None]

# Requests in flight per worker, as in `toolkit.features`. Results are taken in the order of the
# files, so that a DataFrame has the same rows in the same places whenever it is computed: samples,
# splits and limits of it depend on that.
_THREADS = 32
# Files that are fetched and not yet decoded, at most: number, and size of as many of middle size.
_AHEAD = 512
_AHEAD_BYTES = 64 << 20
# Rows leave a worker by portions, the first of them soon: `first()` and `show()` need no more.
_FIRST_PORTION_BYTES = 1 << 20
_PORTION_BYTES = 32 << 20

# What a row takes beside its binary fields.
_ROW_BYTES = 256

_FILE_SCHEME = "file://"
_PATTERN = re.compile(r"[*?[]")
_ALTERNATIVES = re.compile(r"\{([^{}]*)\}")
_FILES = pa.schema([("uri", pa.string()), ("size", pa.int64())])


def read_files(
    path: str,
    to_row: ToRow,
    *,
    schema: StructType,
    recursive: bool = False,
    partitions: int = -1,
    sample: tuple[float, int] = (1.0, 0),
) -> DataFrame:
    """Return a DataFrame of the files at a path, which are listed now and read by its actions.

    Parameters
    ----------
    path
        A folder, a file, or a pattern of them, as for ``ImageSchema.readImages``.
    to_row
        Called on executors with the URI and the content of a file; returns the columns of its row,
        or None if it shall have none.
    schema
        Of the result.
    recursive
        Read the folders below, too.
    partitions
        Of the result, at least 1; -1: the session's default parallelism.
    sample
        Which part of the files to read (0 to 1), and the seed of their choice.

    Raises
    ------
    ValueError
        A number is out of its range.
    RequestError
        There is nothing at the path.
    """
    ratio, seed = sample
    if not 0 <= ratio <= 1:
        raise ValueError(f"sampleRatio is {ratio}; it should be from 0 to 1")
    if partitions != -1 and partitions < 1:
        raise ValueError(f"numPartitions is {partitions}; it should be at least 1, or -1")
    spark = SparkSession.active()
    files, storage = find_files(path, recursive=recursive, store=lambda: session_storage(spark))
    chosen = sample_files(files, ratio, seed)
    return read_each(spark, chosen, to_row, storage=storage, schema=schema, partitions=partitions)


def read_each(
    spark: SparkSession,
    files: Sequence[SourceFile],
    to_row: ToRow,
    *,
    storage: Storage | None,
    schema: StructType,
    partitions: int = -1,
) -> DataFrame:
    """Return a DataFrame of files, which are read by its actions.

    Parameters
    ----------
    spark
        The session.
    files
        Which; one that is gone by then counts as empty.
    to_row, schema, partitions
        As for `read_files`.
    storage
        The store that the files are in; None: they are on the disk of every executor.
    """
    columns = {"uri": [file.uri for file in files], "size": [file.size for file in files]}
    keys = spark.createDataFrame(pa.table(columns, schema=_FILES))
    if partitions != -1:
        keys = keys.repartition(partitions)
    reader = _Reader(storage, to_row, to_arrow_schema(schema))
    return keys.mapInArrow(reader.read, schema)


class SourceFile(NamedTuple):
    """A file to read: its URI, and its size in bytes."""

    uri: str
    size: int


def sample_files(files: Iterable[SourceFile], ratio: float, seed: int) -> list[SourceFile]:
    """Return a part of the files, always the same: a larger ratio adds to it."""
    return [file for file in files if ratio == 1 or _draw(file.uri, seed) < ratio]


def _draw(uri: str, seed: int) -> float:
    """Draw a number from 0 to 1, always the same."""
    digest = hashlib.blake2b(f"{seed} {uri}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64


def find_files(
    path: str, *, recursive: bool, store: Callable[[], Storage]
) -> tuple[Iterable[SourceFile], Storage | None]:
    """List the files at a path.

    Parameters
    ----------
    path, recursive
        As for `read_files`.
    store
        Returns the store that a URI is looked up in.

    Returns
    -------
    files, storage
        The storage is None for files on the disk.

    Raises
    ------
    RequestError
        There is nothing at the path.
    """
    in_store = "://" in path and not path.startswith(_FILE_SCHEME)
    storage = store() if in_store else None
    # file:/a, file:///a and file://host/a are all in use.
    plain = path if in_store else re.sub(r"^file:(//[^/]*)?(?=/)", "", path)
    listings = [
        _local_files(Path(each).absolute(), recursive=recursive)
        if storage is None
        else _objects(storage, Location.parse(each), recursive=recursive)
        for each in _alternatives(plain)
    ]
    found = [listing for listing in listings if listing is not None]
    if not found:
        raise RequestError(
            f"There is nothing at {path}.",
            remedy="Give a folder, a file or a pattern, on a disk or as s3a://bucket/prefix.",
        )
    # A file that fits two alternatives is one file.
    files = found[0] if len(listings) == 1 else sorted(set(chain.from_iterable(found)))
    return files, storage


def _alternatives(path: str) -> Iterator[str]:
    """Yield what a path with ``{a,b}`` stands for; without, it is the path itself."""
    innermost = _ALTERNATIVES.search(path)
    if innermost is None:
        yield path
        return
    for each in innermost[1].split(","):
        yield from _alternatives(path[: innermost.start()] + each + path[innermost.end() :])


def _local_files(path: Path, *, recursive: bool) -> Iterable[SourceFile] | None:
    """List the files at a path of this machine; None if there is nothing."""
    folder, pattern = _split(str(path))
    root = Path(folder or "/")
    if root.is_file() and not pattern:
        return [SourceFile(f"{_FILE_SCHEME}{root}", root.stat().st_size)]
    if not root.is_dir():
        return None
    depth = None if recursive else len(pattern) + 1
    names = [
        name
        for name in files_below(root, depth=depth)
        if _is_chosen(name, pattern, recursive=recursive)
    ]
    if pattern and not names:
        return None
    base = str(root).rstrip("/")
    return (
        SourceFile(f"{_FILE_SCHEME}{base}/{name}", (root / name).stat().st_size) for name in names
    )


def _objects(
    storage: Storage, location: Location, *, recursive: bool
) -> Iterable[SourceFile] | None:
    """List the objects at a location; None if there is nothing."""
    folder, pattern = _split(location.key)
    root = Location(location.bucket, folder)
    prefix = len(folder) + 1 if folder else 0
    listed = list(storage.objects(root) if recursive or pattern else storage.files(root))
    found = [
        SourceFile(entry.location.uri, entry.size)
        for entry in _without_folders(listed)
        if _is_chosen(entry.location.key[prefix:], pattern, recursive=recursive)
    ]
    if found or (not pattern and (listed or storage.folders(root))):
        return found
    itself = None if pattern else storage.find(root)
    return None if itself is None else [SourceFile(root.uri, itself.size)]


def _without_folders(listed: list[ObjectInfo]) -> Iterator[ObjectInfo]:
    """Leave out the empty objects that stand for folders, as some tools write them."""
    for entry, following in zip_longest(listed, listed[1:]):
        below = f"{entry.location.key}/"
        if entry.size or following is None or not following.location.key.startswith(below):
            yield entry


def _split(path: str) -> tuple[str, list[str]]:
    """Split a path before its first name that is a pattern."""
    names = path.split("/")
    plain = next((i for i, name in enumerate(names) if _PATTERN.search(name)), len(names))
    return "/".join(names[:plain]), names[plain:]


def _is_chosen(name: str, pattern: list[str], *, recursive: bool) -> bool:
    """Whether to read a file, by its name below what comes before the pattern.

    The pattern means files, and folders with the files in them; without one, the folder is meant.
    """
    names = name.split("/")
    if any(not each or each.startswith((".", "_")) for each in names):
        return False
    below = len(names) - len(pattern)
    return below >= 0 and (recursive or below <= 1) and all(map(fnmatchcase, names, pattern))


@dataclass(frozen=True)
class _Reader:
    """Reads files and makes rows of them, on an executor.

    Parameters
    ----------
    storage
        Where the files are; None: on the disk.
    to_row
        Turns URI and content into a row, or None.
    schema
        Of the rows.
    """

    storage: Storage | None
    to_row: ToRow
    schema: pa.Schema

    def read(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Turn batches of files (URI, size) into batches of rows of a bounded size."""
        rows: list[Sequence[Any]] = []
        size, limit = 0, _FIRST_PORTION_BYTES
        for uri, content in self._contents(batches):
            row = self.to_row(uri, content)
            if row is None:
                continue
            rows.append(row)
            size += _ROW_BYTES + _bytes_of(row)
            if size >= limit:
                yield self._batch(rows)
                rows.clear()
                size, limit = 0, min(2 * limit, _PORTION_BYTES)
        yield self._batch(rows)

    def _contents(self, batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[str, bytes]]:
        for batch in batches:
            uris, sizes = (column.to_pylist() for column in batch.columns)
            ahead = _AHEAD_BYTES * len(sizes) // max(1, sum(sizes))
            yield from in_order(
                lambda uri: (uri, self._content(uri)),
                uris,
                threads=_THREADS,
                ahead=min(max(1, ahead), _AHEAD),
            )

    def _content(self, uri: str) -> bytes:
        """Read a file; one that has gone since it was listed is empty, and no image.

        So is one on a disk that the executor may not read; its log says so.
        """
        try:
            if self.storage is not None:
                return self.storage.read(Location.parse(uri))
            return Path(uri.removeprefix(_FILE_SCHEME)).read_bytes()
        except (ObjectNotFound, FileNotFoundError):
            return b""
        except OSError as exc:
            _log.warning("%s can't be read: %s", uri, exc.strerror)
            return b""

    def _batch(self, rows: list[Sequence[Any]]) -> pa.RecordBatch:
        columns = zip(*rows, strict=True) if rows else [[] for _ in self.schema]
        arrays = [
            pa.array(list(column), field.type)
            for column, field in zip(columns, self.schema, strict=True)
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)


def _bytes_of(row: Iterable[Any]) -> int:
    """Return the bytes of a row's binary fields, those of its structs included."""
    return sum(
        len(field)
        if isinstance(field, bytes | bytearray)
        else _bytes_of(field)
        if isinstance(field, tuple)
        else 0
        for field in row
    )
