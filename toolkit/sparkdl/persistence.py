"""Saves and loads stages that have more than JSON can say: model files, functions, graphs.

A stage is a folder on any file system of Spark: ``metadata/`` as PySpark writes it, and
``attachments/<parameter>`` for each value that is a file or an object.
"""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pyspark import cloudpickle
from pyspark.ml.util import (
    DefaultParamsReader,
    DefaultParamsWriter,
    MLReadable,
    MLReader,
    MLWritable,
    MLWriter,
)

from toolkit.sparkdl.hadoop import hadoop_settings
from toolkit.sparkdl.spark_files import keep

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyspark.sql import SparkSession

__all__ = ["Attached", "Attachment", "FileAttachment", "ObjectAttachment"]

_FOLDER = "attachments"
_EXTRA = "attachments"


class Attachment(ABC):
    """How the value of a parameter becomes a file, and the file the value."""

    @abstractmethod
    def name(self, param: str, value: Any) -> str:
        """Return the name of the file."""

    @abstractmethod
    def dump(self, value: Any) -> bytes:
        """Return the content of the file."""

    @abstractmethod
    def load(self, content: bytes, name: str) -> Any:
        """Return the value."""


class FileAttachment(Attachment):
    """A parameter that names a file, which is saved along; it keeps its ending."""

    def name(self, param: str, value: Any) -> str:
        """Return the name of the file."""
        return param + Path(value).suffix

    def dump(self, value: Any) -> bytes:
        """Return the content of the file."""
        return Path(value).read_bytes()

    def load(self, content: bytes, name: str) -> str:
        """Write the file for as long as this process, and return its path."""
        return str(keep(content, suffix=Path(name).suffix))


class ObjectAttachment(Attachment):
    """A function or another object of Python, as cloudpickle saves it: load only what you trust."""

    def name(self, param: str, value: Any) -> str:
        """Return the name of the file."""
        return f"{param}.pickle"

    def dump(self, value: Any) -> bytes:
        """Return the content of the file."""
        return bytes(cloudpickle.dumps(value))  # type: ignore[no-untyped-call]

    def load(self, content: bytes, name: str) -> Any:
        """Return the object."""
        return cloudpickle.loads(content)


class Attached(MLReadable[Any], MLWritable):
    """A stage that saves and loads with its attachments.

    Attributes
    ----------
    attachments
        By the name of the parameter.
    """

    attachments: ClassVar[Mapping[str, Attachment]] = {}

    def write(self) -> MLWriter:
        """Return what saves the stage: ``write().overwrite().save(path)``."""
        return _Writer(self)

    @classmethod
    def read(cls) -> MLReader[Any]:
        """Return what loads a stage of this class: ``read().load(path)``."""
        return _Reader(cls)


class _Writer(DefaultParamsWriter):
    def __init__(self, stage: Any) -> None:
        super().__init__(stage)
        self._stage = stage
        self._names: dict[str, str] = {}
        self._contents: dict[str, bytes] = {}

    def save(self, path: str) -> None:
        # First, as overwriting begins with deleting: what can't be saved replaces nothing.
        kinds = self._stage.attachments
        values = {
            param.name: value
            for param, value in self._stage.extractParamMap().items()
            if param.name in kinds and value is not None
        }
        self._names = {name: kinds[name].name(name, value) for name, value in values.items()}
        self._contents = {name: kinds[name].dump(value) for name, value in values.items()}
        super().save(path)

    def saveImpl(self, path: str) -> None:
        kinds = self._stage.attachments
        plain = self._stage.copy()
        for name in kinds:
            for params in (plain._paramMap, plain._defaultParamMap):
                params.pop(plain.getParam(name), None)
        DefaultParamsWriter.saveMetadata(
            plain, path, self.sparkSession, extraMetadata={_EXTRA: self._names}
        )
        for name, content in self._contents.items():
            _write(self.sparkSession, f"{path}/{_FOLDER}/{self._names[name]}", content)


class _Reader(DefaultParamsReader[Any]):
    def __init__(self, cls: Any) -> None:
        super().__init__(cls)
        self._stage_class = cls

    def load(self, path: str) -> Any:
        metadata = DefaultParamsReader.loadMetadata(
            path,
            self.sparkSession,
            f"{self._stage_class.__module__}.{self._stage_class.__name__}",
        )
        stage = self._stage_class()
        stage._resetUid(metadata["uid"])
        DefaultParamsReader.getAndSetParams(stage, metadata)
        for name, file in metadata.get(_EXTRA, {}).items():
            content = _read(self.sparkSession, f"{path}/{_FOLDER}/{file}")
            stage._set(**{name: stage.attachments[name].load(content, file)})
        return stage


def _write(spark: SparkSession, uri: str, content: bytes) -> None:
    """Write a file to any file system of Hadoop."""
    jvm, target, system = _hadoop(spark, uri)
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder) / "attachment"
        local.write_bytes(content)
        system.copyFromLocalFile(False, True, jvm.org.apache.hadoop.fs.Path(local.as_uri()), target)  # noqa: FBT003


def _read(spark: SparkSession, uri: str) -> bytes:
    """Read a file of any file system of Hadoop."""
    jvm, source, system = _hadoop(spark, uri)
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder) / "attachment"
        # Raw: without the checksum file that Hadoop lays beside a local one.
        system.copyToLocalFile(False, source, jvm.org.apache.hadoop.fs.Path(local.as_uri()), True)  # noqa: FBT003
        return local.read_bytes()


def _hadoop(spark: SparkSession, uri: str) -> tuple[Any, Any, Any]:
    # PySpark has no public way to Hadoop's file systems.
    jvm: Any = spark.sparkContext._jvm
    path = jvm.org.apache.hadoop.fs.Path(uri)
    return jvm, path, path.getFileSystem(hadoop_settings(spark))
