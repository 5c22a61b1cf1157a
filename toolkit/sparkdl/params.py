"""What SparkDL's stages share: how they take parameters, and how they check columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from pyspark.errors import IllegalArgumentException
from pyspark.ml.linalg import VectorUDT
from pyspark.ml.param import Param, Params, TypeConverters
from pyspark.ml.param.shared import HasInputCol, HasOutputCol
from pyspark.sql.types import BinaryType, DataType, StructType

from toolkit.sparkdl.image.schema import ImageSchema

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pyspark.sql import DataFrame

__all__ = [
    "HasColumns",
    "HasOutputMode",
    "at_least",
    "check_output",
    "given",
    "input_type",
    "is_file",
    "is_image",
    "is_vector",
    "one_of",
    "optional",
]

T = TypeVar("T")

_IMAGE_FIELDS = {field.name: field.dataType for field in ImageSchema.columnSchema}


def one_of(choices: Iterable[str]) -> Callable[[Any], str]:
    """Make a converter that takes some strings only; TypeError for others names them."""
    allowed = list(choices)

    def convert(value: Any) -> str:
        if value in allowed:
            return str(value)
        raise TypeError(f"{value!r} is not in the supported list: {', '.join(allowed)}")

    return convert


def at_least(least: int) -> Callable[[Any], int]:
    """Make a converter that takes whole numbers from `least` on."""

    def convert(value: Any) -> int:
        number = TypeConverters.toInt(value)
        if number < least:
            raise TypeError(f"{value!r} is less than {least}")
        return number

    return convert


class HasColumns(HasInputCol, HasOutputCol):
    """Parameters ``inputCol`` and ``outputCol``, with their setters."""

    def setInputCol(self, value: str) -> Any:
        """Set the name of the column to read."""
        return self._set(inputCol=value)

    def setOutputCol(self, value: str) -> Any:
        """Set the name of the column to add."""
        return self._set(outputCol=value)


class HasOutputMode(Params):
    """Parameter ``outputMode``: ``vector`` or ``image``."""

    outputMode: Param[str] = Param(
        Params._dummy(),
        "outputMode",
        "vector: a vector of MLlib, flattened; image: an image struct of floats.",
        typeConverter=one_of(["vector", "image"]),
    )

    def __init__(self) -> None:
        super().__init__()
        self._setDefault(outputMode="vector")

    def setOutputMode(self, value: str) -> Any:
        """Set what the output column holds: ``vector`` or ``image``."""
        return self._set(outputMode=value)

    def getOutputMode(self) -> str:
        """Return what the output column holds."""
        return str(self.getOrDefault(self.outputMode))


def given(stage: Params) -> dict[str, Any]:
    """Return the arguments of the method of a stage that PySpark's ``keyword_only`` wraps.

    None stands for: not given. PySpark would keep it, and could not load what it has saved.
    """
    arguments: dict[str, Any] = stage._input_kwargs  # type: ignore[attr-defined]
    return {name: value for name, value in arguments.items() if value is not None}


def optional(stage: Params, param: Param[T]) -> T | None:
    """Return the value of a parameter, None where it has none."""
    return stage.getOrDefault(param) if stage.isDefined(param) else None


def input_type(
    dataset: DataFrame, name: str, *, expected: str, fits: Callable[[DataType], bool]
) -> DataType:
    """Return the type of a column.

    Raises
    ------
    IllegalArgumentException
        There is no such column, or it does not fit.
    """
    if name not in dataset.columns:
        raise IllegalArgumentException(
            f"{name} does not exist. Available: {', '.join(dataset.columns)}"
        )
    kind = dataset.schema[name].dataType
    if not fits(kind):
        raise IllegalArgumentException(
            f"Column {name} must be {expected}, but is {kind.simpleString()}."
        )
    return kind


def check_output(dataset: DataFrame, name: str) -> None:
    """Refuse to write over a column.

    Raises
    ------
    IllegalArgumentException
        It exists.
    """
    heeds_case = dataset.sparkSession.conf.get("spark.sql.caseSensitive") == "true"
    there = dataset.columns if heeds_case else [each.lower() for each in dataset.columns]
    if (name if heeds_case else name.lower()) in there:
        raise IllegalArgumentException(f"Output column {name} already exists.")


def is_image(kind: DataType) -> bool:
    """Tell whether a column holds image structs."""
    if not isinstance(kind, StructType):
        return False
    fields = {field.name: field.dataType for field in kind.fields}
    return all(fields.get(name) == expected for name, expected in _IMAGE_FIELDS.items())


def is_file(kind: DataType) -> bool:
    """Tell whether a column holds the contents of files."""
    return isinstance(kind, BinaryType)


def is_vector(kind: DataType) -> bool:
    """Tell whether a column holds vectors of MLlib."""
    return isinstance(kind, VectorUDT)
