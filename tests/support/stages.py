"""Stages of SparkDL computed in this process, by what their executors run, on Arrow arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyspark import cloudpickle
from pyspark.sql import SparkSession
from pyspark.sql.conversion import ArrowTableToRowsConversion, LocalDataToArrowConversion
from pyspark.sql.types import DataType, StructType

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

ROWS_OF_A_BATCH = 8
"""Rows that Arrow has in a batch here: fewer than a network computes at once."""


def computed(stage: Any, rows: Iterable[Any], schema: StructType | str) -> list[Any]:
    """Return the column that a stage adds to these rows, without a job of Spark.

    The stage checks a DataFrame of the schema. Its computation is pickled and loaded again, as for
    an executor, and runs here; accumulators count as on the driver.
    """
    spark = SparkSession.active()
    frame = spark.createDataFrame([], schema)
    computation = cloudpickle.loads(cloudpickle.dumps(stage._computation(frame)))
    names = _input_columns(stage)
    pieces = _pieces(rows, frame.select(*names).schema, [*map(frame.columns.index, names)])
    return python_values(computation(pieces), computation.data_type)


def call(function: Any, rows: Iterable[Any], schema: StructType) -> list[Any]:
    """Return what a function of Spark on one column gives, without a job of Spark."""
    own: Callable[..., Iterator[pa.Array]] = cloudpickle.loads(cloudpickle.dumps(function.func))
    return python_values(own(_pieces(rows, schema, [0])), function.returnType)


def python_values(pieces: Iterable[pa.Array], kind: DataType) -> list[Any]:
    """Return the values of a column as Spark would give them."""
    schema = StructType().add("value", kind)
    arrays = list(pieces)
    if not arrays:
        return []
    table = pa.table({"value": pa.chunked_array(arrays)})
    return [row.value for row in ArrowTableToRowsConversion.convert(table, schema)]


def _input_columns(stage: Any) -> list[str]:
    if stage.hasParam("inputMapping"):
        return [column for column, _ in stage.getInputMapping()]
    return [stage.getInputCol()]


def _pieces(rows: Iterable[Any], schema: StructType, places: Sequence[int]) -> Iterator[Any]:
    """Yield the columns at these places in batches, as Spark's worker gives them to a function."""
    chosen = [tuple(row[place] for place in places) for row in rows]
    if not chosen:
        return
    table = LocalDataToArrowConversion.convert(chosen, schema, use_large_var_types=False)
    for batch in table.to_batches(max_chunksize=ROWS_OF_A_BATCH):
        yield batch.columns[0] if len(places) == 1 else tuple(batch.columns)
