"""The networks of the zoo in stages: converted on the driver, loaded on executors."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from toolkit.folders import cache_folder
from toolkit.images.decode import decode_image
from toolkit.models import load_engine, model_spec, prepare, resolve_weights
from toolkit.sparkdl.cells import image_cells, plain_cells
from toolkit.sparkdl.hadoop import profile_storage, session_storage
from toolkit.sparkdl.image.pixels import rgb_of_size
from toolkit.sparkdl.spark_files import share_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray
    from pyspark.sql import SparkSession

    from toolkit.images.decode import Resampling
    from toolkit.models import Engine, Head, Precision, PreparedModel
    from toolkit.sparkdl.cells import ImageCell
    from toolkit.sparkdl.spark_files import SharedFolder

__all__ = ["NamedNetwork", "Source", "share_network"]

Source = Literal["struct", "file"]
"""What a cell holds: an image struct, or the content of an image file."""

_ENGINES_LOADED = 4


@dataclass(frozen=True)
class _Network:
    """A converted network, where executors find it."""

    model: PreparedModel
    folder: SharedFolder


@dataclass(frozen=True)
class NamedNetwork:
    """What a stage with a network of the zoo does with the cells of its column.

    Parameters
    ----------
    network
        From `share_network`.
    source
        What the cells hold.
    resampling
        How images of another size get the network's.
    batch_size
        Number of images to compute at once; None for the fastest.
    """

    network: _Network
    source: Source
    resampling: Resampling
    batch_size: int | None = None

    def load(self) -> _Loaded:
        """Load the network, on an executor."""
        engine = _engine(self.network, self.batch_size)
        read = _FromStruct if self.source == "struct" else _FromFile
        return read(engine, self.resampling)


def share_network(
    spark: SparkSession, name: str, *, weights: str, precision: Precision, head: Head
) -> _Network:
    """Find a network's weights, convert it unless that is done, and give it to all executors.

    Parameters
    ----------
    spark
        The session; its S3A settings tell the store that may hold weights and converted networks.
    name
        Of a network of the zoo.
    weights
        ``imagenet``, a file, a URI, or ``random:SEED``.
    precision
        What to compute in: ``auto``, ``f32`` or ``bf16``.
    head
        What the network is to end in.

    Raises
    ------
    RequestError
        The weights are not to be found, or do not fit the network.
    """
    spec = model_spec(name)
    cache = cache_folder()
    bucket = profile_storage(spark)
    # A whole URI needs no profile: any session that is set up for the store can read it.
    store = session_storage(spark) if "://" in weights else bucket
    found = resolve_weights(spec, weights, head=head, cache=cache, bucket=store)
    model = prepare(spec, found, precision=precision, head=head, cache=cache, bucket=bucket)
    # Elsewhere the folder is another one.
    shared = share_folder(spark, Path(model.folder), name=model.key)
    return _Network(replace(model, folder=""), shared)


@lru_cache(maxsize=_ENGINES_LOADED)
def _engine(network: _Network, batch_size: int | None) -> Engine:
    """Return the network of this worker process, loaded once."""
    model = replace(network.model, folder=str(network.folder.path()))
    return load_engine(model, threads=1, batch_size=batch_size)


class _Loaded:
    def __init__(self, engine: Engine, resampling: Resampling) -> None:
        self.batch_size = engine.batch_size
        self.compute = engine.compute
        self._size = engine.input_size
        self._resampling = resampling

    def cells(self, column: pa.Array) -> Iterator[Any]:
        raise NotImplementedError

    def read(self, cell: Any) -> NDArray[np.uint8]:
        raise NotImplementedError


class _FromStruct(_Loaded):
    def cells(self, column: pa.Array) -> Iterator[Any]:
        return image_cells(column)

    def read(self, cell: ImageCell) -> NDArray[np.uint8]:
        return rgb_of_size(*cell, size=self._size, resampling=self._resampling)


class _FromFile(_Loaded):
    def cells(self, column: pa.Array) -> Iterator[Any]:
        return plain_cells(column)

    def read(self, cell: bytes) -> NDArray[np.uint8]:
        return decode_image(cell, size=self._size, resampling=self._resampling)
