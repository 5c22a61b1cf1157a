"""``TFTransformer``: applies a function of TensorFlow to columns of numbers and arrays."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar, Never, cast

import numpy as np
import pyarrow as pa
from pyspark import keyword_only
from pyspark.errors import IllegalArgumentException
from pyspark.ml import Transformer
from pyspark.ml.functions import vector_to_array
from pyspark.ml.param import Param, Params
from pyspark.sql.functions import arrow_udf, when  # type: ignore[attr-defined]
from pyspark.sql.pandas.types import to_arrow_type
from pyspark.sql.types import (
    ArrayType,
    BooleanType,
    ByteType,
    DataType,
    DoubleType,
    FloatType,
    IntegerType,
    LongType,
    ShortType,
    StructField,
    StructType,
)

from toolkit.sparkdl.bad_rows import CountsBadRows, report
from toolkit.sparkdl.params import check_output, given, input_type, is_vector, optional
from toolkit.sparkdl.persistence import Attached, Attachment
from toolkit.sparkdl.results import Tensors
from toolkit.sparkdl.tf_graph import (
    GraphAttachment,
    LoadedGraph,
    SharedGraph,
    Tensor,
    TFInputGraph,
    Uncomputable,
    share_graph,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import NDArray
    from pyspark import Accumulator
    from pyspark.sql import Column, DataFrame

__all__ = ["TFTransformer"]


# Rows at once: few at first, then as many as have this size, inputs and outputs together.
_FIRST_ROWS = 32
_MOST_ROWS = 1_024
_BYTES = 16 << 20
_GRAPHS_LOADED = 4

# Types of numbers, by kind: a column can become a tensor of its own kind, and whole numbers floats.
_KINDS: dict[type[DataType], str] = {
    BooleanType: "bool",
    ByteType: "int",
    ShortType: "int",
    IntegerType: "int",
    LongType: "int",
    FloatType: "float",
    DoubleType: "float",
}
# The smallest type of Spark that holds all values of a type of TensorFlow.
_SPARK_TYPES: dict[str, DataType] = {
    "bool": BooleanType(),
    "int8": ByteType(),
    "uint8": ShortType(),
    "int16": ShortType(),
    "uint16": IntegerType(),
    "int32": IntegerType(),
    "uint32": LongType(),
    "int64": LongType(),
    "float16": FloatType(),
    "bfloat16": FloatType(),
    "float32": FloatType(),
    "float64": DoubleType(),
}

Pairs = list[tuple[str, str]]


def _to_pairs(value: Any) -> Pairs:
    """Return a mapping as sorted pairs, as SparkDL's parameters hold it."""
    pairs = value.items() if isinstance(value, dict) else value
    try:
        return sorted((_to_name(first), _to_name(second)) for first, second in pairs)
    except (TypeError, ValueError) as exc:
        raise TypeError(
            f"{value!r} is no mapping of names: a dict of strings, or a list of pairs"
        ) from exc


def _to_name(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no string")
    return value


def _to_graph(value: Any) -> TFInputGraph:
    if not isinstance(value, TFInputGraph):
        raise TypeError(
            f"{type(value).__name__} is no TFInputGraph: make one by TFInputGraph.fromSavedModel "
            "or TFInputGraph.fromFunction"
        )
    return value


def _no_hyper_parameters(value: Any) -> Never:
    raise TypeError(
        f"{type(value).__name__}: hyper-parameters went with tf.contrib of TensorFlow 1; "
        "leave tfHParms out, and build the values into the function"
    )


class TFTransformer(Transformer, CountsBadRows, Attached):
    """Applies a function of TensorFlow to columns of numbers, arrays or MLlib vectors.

    The first side of every tensor is the batch: a row of the DataFrame is a row of each tensor.
    Several outputs are computed at once. A row with a null or with an array of another length than
    the graph takes has null outputs.

    Parameters
    ----------
    tfInputGraph
        The function.
    inputMapping
        For each column the name of an input: a dict, or pairs. Names are those of the signature or
        of the graph, ``:0`` may follow. Whole numbers may become floats, and numbers any size of
        their kind; a whole number that is too large makes its row null. For a tensor with known
        sides an array may also be flat.
    outputMapping
        For each name of an output the column to add: a dict, or pairs. A tensor of one dimension
        gives numbers, of two arrays, of more arrays of arrays; float32 is ``float``, float64
        ``double``, and so on: the smallest type of Spark that holds all values.
    tfHParms
        None: hyper-parameters went with TensorFlow 1.

    Raises
    ------
    TypeError
        A parameter has the wrong type.
    IllegalArgumentException
        By ``transform``: a parameter is missing, a column is missing or does not fit its tensor, an
        output column exists, a tensor does not exist or has no input; the message says what there
        is.
    """

    attachments: ClassVar[Mapping[str, Attachment]] = {"tfInputGraph": GraphAttachment()}

    tfInputGraph: Param[TFInputGraph] = Param(
        Params._dummy(),
        "tfInputGraph",
        "The function of TensorFlow.",
        typeConverter=_to_graph,
    )
    inputMapping: Param[Iterable[tuple[str, str]]] = Param(
        Params._dummy(),
        "inputMapping",
        "Pairs of a column and the name of an input.",
        typeConverter=_to_pairs,
    )
    outputMapping: Param[Iterable[tuple[str, str]]] = Param(
        Params._dummy(),
        "outputMapping",
        "Pairs of the name of an output and a column.",
        typeConverter=_to_pairs,
    )
    tfHParms: Param[None] = Param(
        Params._dummy(),
        "tfHParms",
        "Not used: hyper-parameters of TensorFlow 1.",
        typeConverter=_no_hyper_parameters,
    )

    @keyword_only
    def __init__(
        self,
        *,
        tfInputGraph: TFInputGraph | None = None,
        inputMapping: Mapping[str, str] | Pairs | None = None,
        outputMapping: Mapping[str, str] | Pairs | None = None,
        tfHParms: None = None,
    ) -> None:
        super().__init__()
        self._set(**given(self))

    @keyword_only
    def setParams(
        self,
        *,
        tfInputGraph: TFInputGraph | None = None,
        inputMapping: Mapping[str, str] | Pairs | None = None,
        outputMapping: Mapping[str, str] | Pairs | None = None,
        tfHParms: None = None,
    ) -> TFTransformer:
        """Set those parameters that are given."""
        self._set(**given(self))
        return self

    def setTFInputGraph(self, value: TFInputGraph) -> TFTransformer:
        """Set the function."""
        self._set(tfInputGraph=value)
        return self

    def getTFInputGraph(self) -> TFInputGraph | None:
        """Return the function."""
        return optional(self, self.tfInputGraph)

    def setInputMapping(self, value: Mapping[str, str] | Pairs) -> TFTransformer:
        """Set the columns and the inputs that they become."""
        self._set(inputMapping=value)
        return self

    def getInputMapping(self) -> Pairs:
        """Return pairs of a column and the name of an input."""
        return list(self.getOrDefault(self.inputMapping))

    def setOutputMapping(self, value: Mapping[str, str] | Pairs) -> TFTransformer:
        """Set the outputs and the columns that they become."""
        self._set(outputMapping=value)
        return self

    def getOutputMapping(self) -> Pairs:
        """Return pairs of the name of an output and a column."""
        return list(self.getOrDefault(self.outputMapping))

    def setTFHParams(self, value: None) -> TFTransformer:
        """Take None: hyper-parameters went with TensorFlow 1."""
        self._set(tfHParms=value)
        return self

    def getTFHParams(self) -> None:
        """Return None."""

    def _transform(self, dataset: DataFrame) -> DataFrame:
        compute = self._computation(dataset).function()
        added = [column for _, column in self.getOutputMapping()]
        computed = compute(*(_numbers(dataset, column) for column, _ in self.getInputMapping()))
        # One column for all outputs, so that they are computed once, then one for each.
        together = f"{self.uid}__outputs"
        result = dataset.withColumn(together, computed)
        return result.withColumns(
            {column: result[together].getField(f"_{i}") for i, column in enumerate(added)}
        ).drop(together)

    def _computation(self, dataset: DataFrame) -> _Computation:
        """Check the columns and the parameters, and return what the executors compute."""
        graph = self._needed("tfInputGraph")
        columns = [column for column, _ in self._needed("inputMapping")]
        inputs = _tensors(graph, [name for _, name in self.getInputMapping()])
        outputs = [graph.output(name) for name, _ in self._needed("outputMapping")]
        _check_added(dataset, [column for _, column in self.getOutputMapping()])
        feeds = [
            _feed(dataset, column, tensor) for column, tensor in zip(columns, inputs, strict=True)
        ]
        spark = dataset.sparkSession
        return _Computation(
            share_graph(spark, graph),
            tuple(feeds),
            tuple(each.name for each in outputs),
            tuple(_results(each) for each in outputs),
            self._bad.counter(spark),
        )

    def _needed(self, name: str) -> Any:
        value = optional(self, self.getParam(name))
        if not value:
            raise IllegalArgumentException(f"TFTransformer needs {name}.")
        return value


@dataclass(frozen=True)
class _Feed:
    """How a column becomes an input.

    Parameters
    ----------
    tensor
        The input.
    flat
        Its rows are flat arrays, or numbers, of a tensor whose sides are known.
    """

    tensor: Tensor
    flat: bool

    @property
    def sides(self) -> tuple[int | None, ...] | None:
        """The sides of a row; None if nothing is known."""
        return None if self.tensor.shape is None else self.tensor.shape[1:]

    def misfits(self, cells: _Cells) -> NDArray[np.bool_]:
        """Tell which rows do not have the sides that the tensor has."""
        bad = np.zeros(len(cells.begin), bool)
        if self.flat:
            bad |= cells.end - cells.begin != math.prod(side or 0 for side in self.sides or ())
            return bad
        for side, expected in zip(cells.sides, self.sides or (), strict=False):
            if expected is not None:
                bad |= side != expected
        return bad

    def rows(self, cells: _Cells, which: NDArray[np.int64]) -> NDArray[Any]:
        """Return some rows, which have the same sides."""
        begin = cells.begin[which]
        length = int(cells.end[which[0]] - begin[0])
        if (begin == begin[0] + length * np.arange(len(which))).all():
            numbers = cells.numbers[begin[0] : begin[0] + length * len(which)]
        else:
            numbers = cells.numbers[(begin[:, None] + np.arange(length)).reshape(-1)]
        sides = self.sides if self.flat else [side[which[0]] for side in cells.sides]
        return numbers.reshape(len(which), *(sides or ()))


@dataclass
class _Cells:
    """A column of numbers, arrays or arrays of arrays, as NumPy sees it.

    Parameters
    ----------
    numbers : ndarray of shape (m,)
        All numbers of the column, one row after the other.
    begin, end : ndarrays of shape (n,)
        Where the numbers of a row lie.
    sides : list of ndarrays of shape (n,)
        Lengths of a row's array, of the arrays in it, ….
    reasons : ndarray of shape (n,), object
        Why a row can't be used, else an empty string.
    """

    numbers: NDArray[Any]
    begin: NDArray[np.int64]
    end: NDArray[np.int64]
    sides: list[NDArray[np.int64]]
    reasons: NDArray[np.object_]

    @classmethod
    def of(cls, column: pa.Array, dtype: np.dtype[Any]) -> _Cells:
        """Take a column of Arrow that is to become a tensor of a type."""
        rows = len(column)
        reasons = np.full(rows, "", object)
        reasons[_is_null(column)] = "null"
        begin, end = np.arange(rows), np.arange(1, rows + 1)
        sides: list[NDArray[np.int64]] = []
        while pa.types.is_list(column.type):
            offsets = column.offsets.to_numpy().astype(np.int64)
            lengths = np.diff(offsets)
            first = np.append(lengths, 0)[np.minimum(begin, len(lengths))]
            changes = np.append(False, lengths[1:] != lengths[:-1])
            inner = np.minimum(begin + 1, end)
            _note(reasons, _any(changes, inner, end), "arrays of different lengths in an array")
            sides.append(np.where(end > begin, first, 0))
            begin, end = offsets[begin], offsets[end]
            column = column.values
            _note(reasons, _any(_is_null(column), begin, end), "null in an array")
        numbers = _to_numpy(column)
        if dtype.kind in "iu" and not np.can_cast(numbers.dtype, dtype):
            bounds = np.iinfo(dtype)
            outside = (numbers < bounds.min) | (numbers > bounds.max)
            _note(reasons, _any(outside, begin, end), f"a number too large for {dtype.name}")
        return cls(numbers, begin, end, sides, reasons)


@dataclass
class _Batch:
    """The columns of a batch of Arrow, and which of its rows can be computed."""

    cells: list[_Cells]
    reasons: NDArray[np.object_]

    @classmethod
    def of(cls, columns: Sequence[pa.Array], feeds: Sequence[_Feed], graph: LoadedGraph) -> _Batch:
        """Take the columns, one for each feed."""
        cells = [
            _Cells.of(column, graph.dtypes[feed.tensor.name])
            for column, feed in zip(columns, feeds, strict=True)
        ]
        reasons = np.full(len(columns[0]), "", object)
        for each, feed in zip(cells, feeds, strict=True):
            _note(each.reasons, feed.misfits(each), f"an array that does not fit {feed.tensor}")
            unusable = each.reasons != ""
            reasons[unusable] = each.reasons[unusable]
        return cls(cells, reasons)

    def groups(self, window: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        """Yield rows of a window that can be computed at once: their arrays have the same sides."""
        usable = window[self.reasons[window] == ""]
        sides = [side[usable] for each in self.cells for side in each.sides]
        if not sides or not len(usable):
            yield usable
            return
        _, group = np.unique(np.stack(sides, axis=1), axis=0, return_inverse=True)
        for number in range(group.max() + 1):
            yield usable[group.reshape(-1) == number]


@dataclass(frozen=True)
class _Computation:
    """What an executor does: columns of a DataFrame in, structs of the outputs out."""

    graph: SharedGraph
    feeds: tuple[_Feed, ...]
    names: tuple[str, ...]
    results: tuple[Tensors, ...]
    bad: Accumulator[int]

    @property
    def data_type(self) -> StructType:
        """The type of all outputs together."""
        return StructType(
            [StructField(f"_{i}", each.data_type) for i, each in enumerate(self.results)]
        )

    def function(self) -> Callable[..., Column]:
        """Return the function of Spark that computes the column of structs."""

        def columns(batches: Iterator[Any]) -> Iterator[pa.Array]:
            return self(batches)

        # PySpark reads the kind of function from its hints: types, not their names.
        single = len(self.feeds) == 1
        columns.__annotations__ = {
            "batches": Iterator[pa.Array] if single else Iterator[tuple[pa.Array, ...]],
            "return": Iterator[pa.Array],
        }
        # What a later filter reads would be computed twice: Spark moves the filter before a
        # deterministic function, with a copy of the function in it.
        function = arrow_udf(columns, self.data_type).asNondeterministic()
        return cast("Callable[..., Column]", function)

    def __call__(self, batches: Iterator[Any]) -> Iterator[pa.Array]:
        first = next(batches, None)
        if first is None:
            return
        graph = _loaded(self.graph)
        unusable: Counter[str] = Counter()
        rows = 0
        at_once = _FIRST_ROWS
        try:
            for columns in chain([first], batches):
                # With one column only, Spark does not put it into a tuple.
                single = isinstance(columns, pa.Array)
                batch = _Batch.of([columns] if single else columns, self.feeds, graph)
                unusable.update(reason for reason in batch.reasons if reason)
                count = len(batch.reasons)
                rows += count
                start = 0
                while start < count:
                    window = np.arange(start, min(start + at_once, count))
                    results, size = self._compute(graph, batch, window, refused=unusable)
                    yield self._column(results)
                    at_once = int(np.clip(_BYTES * len(window) // max(size, 1), 1, _MOST_ROWS))
                    start += len(window)
        finally:
            report(unusable, rows=rows, bad=self.bad)

    def _compute(
        self,
        graph: LoadedGraph,
        batch: _Batch,
        window: NDArray[np.int64],
        *,
        refused: Counter[str],
    ) -> tuple[list[list[NDArray[Any] | None]], int]:
        """Compute the outputs of some rows, and return their size with that of the inputs."""
        results: list[list[NDArray[Any] | None]] = [[None] * len(window) for _ in self.names]
        size = 0
        for group in batch.groups(window):
            if not len(group):
                continue
            inputs = {
                feed.tensor.name: feed.rows(cells, group)
                for feed, cells in zip(self.feeds, batch.cells, strict=True)
            }
            size += sum(each.nbytes for each in inputs.values())
            for rows, outputs in self._outputs(graph, inputs, group - window[0], refused=refused):
                size += sum(each.nbytes for each in outputs.values())
                for name, cells_of_output in zip(self.names, results, strict=True):
                    for row, result in zip(rows, outputs[name], strict=True):
                        cells_of_output[row] = result
        return results, size

    def _outputs(
        self,
        graph: LoadedGraph,
        inputs: dict[str, NDArray[Any]],
        rows: NDArray[np.int64],
        *,
        refused: Counter[str],
    ) -> Iterator[tuple[NDArray[np.int64], dict[str, NDArray[Any]]]]:
        """Compute rows together, or each alone where the graph refuses one of them."""
        try:
            yield rows, graph.compute(inputs, self.names)
        except Uncomputable as exc:
            if len(rows) == 1:
                refused[str(exc)] += 1
                return
            for place in range(len(rows)):
                one = slice(place, place + 1)
                alone = {name: each[one] for name, each in inputs.items()}
                yield from self._outputs(graph, alone, rows[one], refused=refused)

    def _column(self, results: list[list[NDArray[Any] | None]]) -> pa.Array:
        return pa.StructArray.from_arrays(
            [kind.column(cells) for kind, cells in zip(self.results, results, strict=True)],
            fields=list(to_arrow_type(self.data_type)),
        )


def _is_null(column: pa.Array) -> NDArray[np.bool_]:
    return np.asarray(column.is_null().to_numpy(zero_copy_only=False), bool)


def _to_numpy(column: pa.Array) -> NDArray[Any]:
    """Return numbers as they are, some number for null: Arrow itself would make floats of them."""
    filled = column.fill_null(pa.scalar(0).cast(column.type)) if column.null_count else column
    return np.asarray(filled.to_numpy(zero_copy_only=False))


def _any(flags: NDArray[np.bool_], begin: NDArray[Any], end: NDArray[Any]) -> NDArray[np.bool_]:
    """Tell for each row whether one of the flags from its begin to its end is set."""
    if not flags.any():
        return np.zeros(len(begin), bool)
    counts = np.concatenate([[0], np.cumsum(flags)])
    return np.asarray(counts[end] > counts[begin])


def _note(reasons: NDArray[np.object_], which: NDArray[np.bool_], reason: str) -> None:
    """Give rows a reason, unless they have one."""
    reasons[which & (reasons == "")] = reason


def _tensors(graph: TFInputGraph, names: list[str]) -> list[Tensor]:
    """Return the inputs of these names.

    Raises
    ------
    IllegalArgumentException
        One is not there, has no column or has two.
    """
    found = [graph.input(name) for name in names]
    counts = Counter(each.name for each in found)
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        raise IllegalArgumentException(f"inputMapping has several columns for {', '.join(twice)}.")
    missing = [str(each) for each in graph.inputs if each.name not in counts]
    if missing:
        raise IllegalArgumentException(f"inputMapping has no column for {', '.join(missing)}.")
    return found


def _check_added(dataset: DataFrame, columns: list[str]) -> None:
    twice = [name for name, count in Counter(columns).items() if count > 1]
    if twice:
        raise IllegalArgumentException(f"outputMapping has several outputs for {', '.join(twice)}.")
    for column in columns:
        check_output(dataset, column)


def _feed(dataset: DataFrame, column: str, tensor: Tensor) -> _Feed:
    """Return how a column becomes an input.

    Raises
    ------
    IllegalArgumentException
        It can't.
    """
    kind = input_type(
        dataset,
        column,
        expected="numbers, arrays of numbers, or vectors",
        fits=lambda kind: type(_element(kind)) in _KINDS,
    )
    if tensor.dtype not in _SPARK_TYPES:
        raise IllegalArgumentException(f"The input {tensor} takes no numbers that Spark has.")
    if tensor.shape == ():
        raise IllegalArgumentException(f"The input {tensor} has no side for the batch.")
    given, taken = _KINDS[type(_element(kind))], _KINDS[type(_SPARK_TYPES[tensor.dtype])]
    if (given, taken) not in {("int", "float"), (taken, taken)}:
        raise IllegalArgumentException(
            f"Column {column} ({kind.simpleString()}) does not fit the input {tensor}: cast it."
        )
    if tensor.shape is None or _depth(kind) == len(tensor.shape) - 1:
        return _Feed(tensor, flat=False)
    sides, depth = tensor.shape[1:], _depth(kind)
    flat = depth == 1 and len(sides) > 1 and None not in sides
    if not flat and not (depth == 0 and set(sides) == {1}):
        raise IllegalArgumentException(
            f"Column {column} ({kind.simpleString()}) does not fit the input {tensor}: "
            f"arrays lie {depth} deep, not {len(sides)}."
        )
    return _Feed(tensor, flat=True)


def _numbers(dataset: DataFrame, column: str) -> Column:
    """Return the column as numbers or arrays."""
    if not is_vector(dataset.schema[column].dataType):
        return dataset[column]
    # Spark's function refuses null.
    return when(dataset[column].isNotNull(), vector_to_array(dataset[column]))


def _element(kind: DataType) -> DataType:
    if is_vector(kind):
        return DoubleType()
    return _element(kind.elementType) if isinstance(kind, ArrayType) else kind


def _depth(kind: DataType) -> int:
    if isinstance(kind, ArrayType):
        return 1 + _depth(kind.elementType)
    return int(is_vector(kind))


def _results(tensor: Tensor) -> Tensors:
    """Return what column an output becomes.

    Raises
    ------
    IllegalArgumentException
        None.
    """
    if tensor.dtype not in _SPARK_TYPES:
        raise IllegalArgumentException(f"The output {tensor} has no numbers that Spark has.")
    if tensor.shape == ():
        raise IllegalArgumentException(f"The output {tensor} has no side for the batch.")
    return Tensors(_SPARK_TYPES[tensor.dtype], 1 if tensor.shape is None else len(tensor.shape) - 1)


@lru_cache(maxsize=_GRAPHS_LOADED)
def _loaded(graph: SharedGraph) -> LoadedGraph:
    """Return the graph of this worker process, loaded once."""
    return graph.load()
