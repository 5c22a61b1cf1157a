"""A dataset in the object store: numbered Parquet parts, each written whole by one PUT.

A part is one PUT under a name that follows from its number. So a reader sees a part whole or not at
all, a task that Spark repeats writes the same object again, and no committer has to move anything.
Tasks write parts without the JVM: the first Parquet file that Spark writes over S3A costs it ten
seconds of loading classes.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from toolkit.ahead import in_order
from toolkit.errors import JobError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from toolkit.storage import Location, ObjectInfo, Storage

__all__ = ["SUCCESS", "DamagedPart", "Dataset", "PartFile", "matrix", "vectors_column"]

SUCCESS = "_SUCCESS"
"""Name of the empty object that says, as Hadoop's does, that a dataset is complete."""

_PREFIX, _SUFFIX = "part-", ".parquet"

# Parts that are being read or wait: they hide what a distant store takes to answer; a part has some
# megabytes.
_READ_AHEAD = 2


class DamagedPart(JobError):  # noqa: N818 - named for what happened
    """A part is not what was written."""


class PartFile(NamedTuple):
    """A part in the store: its number, and bytes of its file."""

    number: int
    size: int


@dataclass(frozen=True)
class Dataset:
    """The parts below one location. Small and picklable: Spark tasks carry it."""

    storage: Storage
    location: Location

    def write(
        self, number: int, table: pa.Table, *, metadata: Mapping[str, str] | None = None
    ) -> None:
        """Write a part, or write it again.

        Parameters
        ----------
        number
            Its place in the dataset, from 0.
        table
            Its rows.
        metadata
            Text to keep in the file beside the rows.
        """
        table = table.replace_schema_metadata(metadata)
        strings = [field.name for field in table.schema if pa.types.is_string(field.type)]
        file = io.BytesIO()
        # Vectors hold no value twice: a dictionary of them would only cost time.
        pq.write_table(table, file, compression="zstd", use_dictionary=strings)
        self.storage.write(self._part(number), file.getvalue())

    def read(self, number: int, *, columns: Sequence[str] | None = None) -> pa.Table:
        """Read a part; ``table.schema.metadata`` holds what `write` was given.

        Raises
        ------
        ObjectNotFound
            There is no such part.
        DamagedPart
            It is no Parquet file with these columns.
        """
        return self._read(self._part(number), columns)

    def read_each(self, numbers: Iterable[int]) -> Iterator[pa.Table]:
        """Read parts one after another, the next while the reader works: see `read`."""
        return in_order(self.read, numbers, threads=_READ_AHEAD, ahead=_READ_AHEAD)

    def tables(self, *, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Yield every Parquet file of the location, whoever wrote it, in order of the names."""
        for entry in self._files():
            yield self._read(entry.location, columns)

    def files(self) -> list[PartFile]:
        """Return the parts that are there, in order of their numbers."""
        found = []
        for entry in self._files():
            name = entry.location.key.rpartition("/")[2]
            digits = name.removeprefix(_PREFIX).removesuffix(_SUFFIX)
            if digits.isdigit():
                found.append(PartFile(int(digits), entry.size))
        return sorted(found)

    def clear(self) -> None:
        """Delete all objects of the dataset."""
        self.storage.delete_below(self.location)

    def complete(self) -> None:
        """Mark the dataset as complete."""
        self.storage.write(self.location / SUCCESS, b"")

    def _files(self) -> Iterator[ObjectInfo]:
        for entry in self.storage.objects(self.location):
            if entry.location.key.endswith(_SUFFIX):
                yield entry

    def _part(self, number: int) -> Location:
        return self.location / f"{_PREFIX}{number:07d}{_SUFFIX}"

    def _read(self, location: Location, columns: Sequence[str] | None) -> pa.Table:
        file = io.BytesIO(self.storage.read(location))
        try:
            return pq.read_table(file, columns=None if columns is None else list(columns))
        except (pa.ArrowException, OSError) as exc:  # what is damaged makes Arrow raise either
            raise DamagedPart(
                f"{location.uri} can't be read: {exc}", remedy="Run again with --fresh."
            ) from exc


def vectors_column(vectors: NDArray[np.float32]) -> pa.Array:
    """Turn an array of shape (n, d) into a column of n lists, without a copy."""
    n, dimensions = vectors.shape
    offsets = pa.array(range(0, (n + 1) * dimensions, dimensions), pa.int32())
    return pa.ListArray.from_arrays(offsets, pa.array(vectors.reshape(-1), pa.float32()))


def matrix(column: pa.ChunkedArray, *, dimensions: int) -> NDArray[np.float32]:
    """Turn a column of n lists, all of one length, into an array of shape (n, d).

    Raises
    ------
    JobError
        A vector is missing or has another length.
    """
    lists = column.combine_chunks()
    flat: NDArray[np.float32] = lists.flatten().to_numpy(zero_copy_only=False)
    lengths = lists.value_lengths()
    if lists.null_count or pc.any(pc.not_equal(lengths, dimensions)).as_py():
        raise JobError(
            f"Some vectors are missing or do not have {dimensions} numbers.",
            remedy="Compute them again: run with --fresh.",
        )
    return flat.reshape(len(lists), dimensions)
