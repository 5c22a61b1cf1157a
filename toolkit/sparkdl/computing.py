"""Computes a column from another, on the executors: cells in, full batches, results out.

Arrow carries the cells to the Python workers. Batches of the network go across Arrow's own, so that
none is half empty, and results leave by portions, so that memory holds few of them. A cell that
can't be read becomes null: it is counted, and the worker's log says why.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING, Any, Protocol, cast

import pyarrow as pa
from pyspark.sql.functions import arrow_udf  # type: ignore[attr-defined]

from toolkit.images.decode import UnreadableImage
from toolkit.inference import infer
from toolkit.sparkdl.bad_rows import report

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray
    from pyspark import Accumulator
    from pyspark.sql import Column
    from pyspark.sql.types import DataType

    from toolkit.sparkdl.results import Results

__all__ = ["Computation", "Loaded", "Program"]

# Results that wait in a worker: a flattened network gives 1.6 MB for an image.
_PORTION_BYTES = 16 << 20
_PORTION_ROWS = 1_024
# A pipeline may have several networks; each holds some hundred megabytes.
_PROGRAMS_LOADED = 4


class Program(Protocol):
    """What a stage does with cells. Picklable and hashable: a worker loads equal ones once."""

    def __hash__(self) -> int: ...

    def load(self) -> Loaded:
        """Load what computes, on an executor."""


class Loaded(Protocol):
    """A program in a worker process."""

    @property
    def batch_size(self) -> int:
        """Number of images that it computes at once."""

    def cells(self, column: pa.Array) -> Iterator[Any]:
        """Yield the cells of a column, None for null."""

    def read(self, cell: Any) -> NDArray[Any]:
        """Turn a cell into what the network takes.

        Raises
        ------
        UnreadableImage
            The cell can't be read.
        """

    def compute(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Compute n results, of any shape, from an array of shape (n, …)."""


@dataclass(frozen=True)
class Computation:
    """Computes a column from another: pieces of a column in, pieces of the computed one out.

    Parameters
    ----------
    program
        What to do with the cells.
    results
        What kind of column they become.
    bad
        Counts the cells that can't be read.
    """

    program: Program
    results: Results
    bad: Accumulator[int]

    @property
    def data_type(self) -> DataType:
        """The type of the computed column."""
        return self.results.data_type

    def function(self) -> Callable[[Column], Column]:
        """Return the function of Spark that computes the column on the executors."""

        def columns(cells: Iterator[pa.Array]) -> Iterator[pa.Array]:
            return self(cells)

        # PySpark reads the kind of function from its hints, which must be types, not their names.
        columns.__annotations__ = dict.fromkeys(("cells", "return"), Iterator[pa.Array])
        # As deterministic, Spark would move a filter on the result below it, and compute it twice.
        computed = arrow_udf(columns, self.data_type).asNondeterministic()
        return cast("Callable[[Column], Column]", computed)

    def __call__(self, columns: Iterator[pa.Array]) -> Iterator[pa.Array]:
        """Compute the column, on an executor."""
        first = next(columns, None)
        if first is None:
            return
        loaded = _loaded(self.program)
        unreadable: Counter[str] = Counter()
        portion = _Portion()

        def images() -> Iterator[tuple[int, NDArray[Any] | str]]:
            row = 0
            for column in chain([first], columns):
                for cell in loaded.cells(column):
                    yield row, _read(loaded, cell)
                    row += 1

        try:
            for row, result in infer(loaded.compute, images(), batch_size=loaded.batch_size):
                if isinstance(result, str):
                    unreadable[result] += 1
                portion.take(row, None if isinstance(result, str) else result)
                if portion.is_full:
                    yield self.results.column(portion.pop())
            if portion.ready:
                yield self.results.column(portion.pop())
        finally:
            report(unreadable, rows=portion.rows, bad=self.bad)


@dataclass
class _Portion:
    """Results in the order of their rows, though some come early."""

    ready: list[NDArray[np.float32] | None] = field(default_factory=list)
    rows: int = 0
    _bytes: int = 0
    _early: dict[int, NDArray[np.float32] | None] = field(default_factory=dict)

    def take(self, row: int, result: NDArray[np.float32] | None) -> None:
        self._early[row] = result
        while self.rows in self._early:
            each = self._early.pop(self.rows)
            self.ready.append(each)
            self._bytes += 0 if each is None else each.nbytes
            self.rows += 1

    @property
    def is_full(self) -> bool:
        return len(self.ready) >= _PORTION_ROWS or self._bytes >= _PORTION_BYTES

    def pop(self) -> list[NDArray[np.float32] | None]:
        ready, self.ready, self._bytes = self.ready, [], 0
        return ready


def _read(loaded: Loaded, cell: Any) -> NDArray[Any] | str:
    if cell is None:
        return "null"
    try:
        return loaded.read(cell)
    except UnreadableImage as exc:
        return exc.reason


@lru_cache(maxsize=_PROGRAMS_LOADED)
def _loaded(program: Program) -> Loaded:
    return program.load()
