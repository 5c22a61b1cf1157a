"""``KerasTransformer``: a Keras model on a column of arrays of numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from pyspark import keyword_only
from pyspark.ml import Transformer
from pyspark.sql.types import ArrayType, FloatType, NumericType

from toolkit.sparkdl.bad_rows import CountsBadRows
from toolkit.sparkdl.cells import array_of, list_cells, vector_cells
from toolkit.sparkdl.computing import Computation
from toolkit.sparkdl.keras_models import HasKerasModel, share_model
from toolkit.sparkdl.params import HasColumns, check_output, given, input_type, is_vector
from toolkit.sparkdl.persistence import Attached, Attachment, FileAttachment, ObjectAttachment
from toolkit.sparkdl.results import Tensors

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import pyarrow as pa
    from numpy.typing import NDArray
    from pyspark.sql import DataFrame
    from pyspark.sql.types import DataType

    from toolkit.sparkdl.keras_models import KerasModel, LoadedModel

__all__ = ["KerasTransformer"]


class KerasTransformer(Transformer, HasColumns, HasKerasModel, CountsBadRows, Attached):
    """Applies a Keras model to a column of arrays.

    Adds a column of arrays of floats, in arrays where the model gives more than one axis: for a
    model that gives (2, 3), ``array<array<float>>``. Arrays that do not fit the model's input
    become null.

    Parameters
    ----------
    inputCol
        Column of arrays of numbers of any type, in arrays to the depth of the model's input, or of
        vectors of MLlib for a model that takes one axis.
    outputCol
        Column to add.
    modelFile
        What ``model.save`` has written (``.keras``, ``.h5`` or ``.hdf5``), on the driver: a model
        of one input and one output. Its layers must be Keras' own: executors have no other.

    Raises
    ------
    IllegalArgumentException
        By ``transform``: the input column is missing or holds nothing that the model takes, or the
        output column exists.
    ValueError
        By ``transform``: the model file can't be used.
    """

    attachments: ClassVar[Mapping[str, Attachment]] = {
        "modelFile": FileAttachment(),
        "kerasFitParams": ObjectAttachment(),
    }

    @keyword_only
    def __init__(
        self,
        *,
        inputCol: str | None = None,
        outputCol: str | None = None,
        modelFile: str | None = None,
    ) -> None:
        super().__init__()
        self._set(**given(self))

    @keyword_only
    def setParams(
        self,
        *,
        inputCol: str | None = None,
        outputCol: str | None = None,
        modelFile: str | None = None,
    ) -> KerasTransformer:
        """Set those parameters that are given."""
        self._set(**given(self))
        return self

    def _transform(self, dataset: DataFrame) -> DataFrame:
        compute = self._computation(dataset).function()
        return dataset.withColumn(self.getOutputCol(), compute(dataset[self.getInputCol()]))

    def _computation(self, dataset: DataFrame) -> Computation:
        """Check the columns and the parameters, and return what the executors compute."""
        spark = dataset.sparkSession
        input_type(
            dataset, self.getInputCol(), expected=_EXPECTED, fits=lambda kind: _axes(kind) > 0
        )
        check_output(dataset, self.getOutputCol())
        model = share_model(spark, self.getModelFile())
        axes = len(model.input_shape)
        kind = input_type(
            dataset,
            self.getInputCol(),
            expected=f"{_EXPECTED} of {axes} axes, as the model {self.getModelFile()} takes",
            fits=lambda kind: _axes(kind) == axes,
        )
        return Computation(
            _Numbers(model, vectors=is_vector(kind)),
            Tensors(FloatType(), len(model.output_shape)),
            self._bad.counter(spark),
        )


_EXPECTED = "arrays of numbers, or vectors of MLlib,"


def _axes(kind: DataType) -> int:
    """Return how many axes the cells of a column have; 0 if they are no arrays of numbers."""
    if is_vector(kind):
        return 1
    axes = 0
    while isinstance(kind, ArrayType):
        axes += 1
        kind = kind.elementType
    return axes if isinstance(kind, NumericType) else 0


@dataclass(frozen=True)
class _Numbers:
    """Computes what a model makes of arrays or vectors."""

    model: KerasModel
    vectors: bool

    def load(self) -> _LoadedNumbers:
        return (_FromVectors if self.vectors else _FromLists)(self.model.load())


class _LoadedNumbers:
    def __init__(self, model: LoadedModel) -> None:
        self.batch_size = model.batch_size
        self.compute = model.compute
        self._model = model

    def cells(self, column: pa.Array) -> Iterator[Any]:
        raise NotImplementedError

    def read(self, cell: Any) -> NDArray[Any]:
        raise NotImplementedError


class _FromVectors(_LoadedNumbers):
    def cells(self, column: pa.Array) -> Iterator[Any]:
        return vector_cells(column)

    def read(self, cell: NDArray[Any]) -> NDArray[Any]:
        return self._model.fit_to_input(cell)


class _FromLists(_LoadedNumbers):
    def cells(self, column: pa.Array) -> Iterator[Any]:
        return list_cells(column)

    def read(self, cell: pa.Array) -> NDArray[Any]:
        return self._model.fit_to_input(array_of(cell))
