"""Images -> feature vectors, on Spark.

The keys of the images are spread over the executors. In each Python worker three things go on at
the same time: bytes are fetched (many requests in flight), images are decoded and resized, and the
network runs on full batches. Bytes and pixels never cross into the JVM; vectors leave as Arrow.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from threading import Semaphore
from typing import TYPE_CHECKING, TypeVar

from toolkit.images.decode import UnreadableImage, decode_image
from toolkit.models import engine_for
from toolkit.storage import Location, ObjectNotFound, Storage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    import numpy as np
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession

    from toolkit.images.listing import ImageObject
    from toolkit.models import Engine, PreparedModel

__all__ = ["FEATURIZED_SCHEMA", "Featurizer", "featurize"]

FEATURIZED_SCHEMA = "origin string, label string, features array<float>, reason string"

# Requests in flight per worker: on loopback 8 already keep a worker busy; more hide the tens of
# milliseconds that S3 takes, and 16 photos of a phone in memory are still nothing.
_FETCHES_IN_FLIGHT = 16
# Decoding runs beside the network on the worker's core; a second thread covers uneven sizes.
_DECODERS = 2
# Vectors leave a worker so many at a time; the engine cuts them into batches of its own.
_ROWS_PER_BATCH = 32
# Images that are fetched and decoded while the network runs.
_IMAGES_AHEAD = 3 * _ROWS_PER_BATCH
# A partition is the unit of retry, of balance and of progress: a few tasks a slot, none so small
# that starting it shows.
_TASKS_PER_SLOT = 8
_SMALLEST_PARTITION = 32
_LARGEST_PARTITION = 256

Key = tuple[str, str]  # origin, label
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Featurizer:
    """What an executor needs to turn keys into vectors; small and picklable.

    Parameters
    ----------
    model
        The converted network.
    storage
        Where images are, and the model where an executor does not have it.
    model_location
        Where the files of the converted network are in the store.
    cache
        Folder on the executor that keeps converted networks.
    threads
        Threads of the inference engine in one worker process (at least 1).
    """

    model: PreparedModel
    storage: Storage
    model_location: Location
    cache: Path
    threads: int = 1

    def __call__(self, keys: Iterable[Key]) -> Iterator[pa.RecordBatch]:
        """Yield the vectors of the images as Arrow batches of ``FEATURIZED_SCHEMA``."""
        engine = _engine(self)
        loader = _Loader(self.storage, engine.input_size)
        loaded = _in_flight(loader, keys, threads=_FETCHES_IN_FLIGHT, ahead=_IMAGES_AHEAD)
        while chunk := list(islice(loaded, _ROWS_PER_BATCH)):
            yield _featurize_chunk(chunk, engine)


def featurize(
    spark: SparkSession, images: Sequence[ImageObject], *, featurizer: Featurizer, slots: int
) -> DataFrame:
    """Return the (lazy) vectors of the images, one row an image.

    Parameters
    ----------
    spark
        The session.
    images
        What to featurize.
    featurizer
        How.
    slots
        Tasks that run at a time; sets the size of the partitions.

    Returns
    -------
    DataFrame
        origin, label, features (float32 [D], null where the image is unreadable), reason (null
        where it is readable).
    """
    partitions = _partitions(images, slots)
    keys = spark.sparkContext.broadcast(partitions)

    def featurize_partitions(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        numbers = (number for batch in batches for number in batch.column(0).to_pylist())
        return featurizer(key for number in numbers for key in keys.value[number])

    # One row a partition, its number: so the driver decides which images a task gets, and no
    # shuffle has to spread them.
    rows = spark.range(0, len(partitions), 1, numPartitions=len(partitions))
    return rows.mapInArrow(featurize_partitions, FEATURIZED_SCHEMA)


@dataclass(frozen=True, slots=True)
class _Loaded:
    """One image of a batch: its pixels, or the reason why there are none."""

    origin: str
    label: str
    pixels: np.ndarray | None
    reason: str | None


class _Loader:
    """Fetches and decodes one image; called from several threads."""

    def __init__(self, storage: Storage, size: tuple[int, int]) -> None:
        self._storage = storage
        self._size = size
        # Many requests may wait for the network, few images may lie decoded at full size.
        self._decoding = Semaphore(_DECODERS)

    def __call__(self, key: Key) -> _Loaded:
        origin, label = key
        try:
            content = self._storage.read(Location.parse(origin))
            with self._decoding:
                return _Loaded(origin, label, decode_image(content, size=self._size), None)
        except ObjectNotFound:
            return _Loaded(origin, label, None, "the object disappeared after it was listed")
        except UnreadableImage as exc:
            return _Loaded(origin, label, None, str(exc))


def _partitions(images: Sequence[ImageObject], slots: int) -> list[list[Key]]:
    """Cut the images into the tasks' shares, in their order."""
    size = -(-len(images) // (slots * _TASKS_PER_SLOT))
    size = min(max(size, _SMALLEST_PARTITION), _LARGEST_PARTITION)
    keys = [(image.origin, image.label) for image in images]
    return [keys[start : start + size] for start in range(0, len(keys), size)]


def _in_flight(
    function: Callable[[T], R], items: Iterable[T], *, threads: int, ahead: int
) -> Iterator[R]:
    """Yield ``function(item)`` in the order of the items, computing up to `ahead` of them ahead."""
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[R]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _featurize_chunk(chunk: list[_Loaded], engine: Engine) -> pa.RecordBatch:
    import numpy as np
    import pyarrow as pa

    pixels = [item.pixels for item in chunk if item.pixels is not None]
    vectors = (
        engine.featurize(np.stack(pixels))
        if pixels
        else np.empty((0, engine.dimensions), np.float32)
    )
    readable = np.array([item.pixels is not None for item in chunk])
    lengths = np.where(readable, engine.dimensions, 0)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    features = pa.ListArray.from_arrays(
        pa.array(offsets), pa.array(vectors.ravel(), pa.float32()), mask=pa.array(~readable)
    )
    return pa.record_batch(
        {
            "origin": pa.array([item.origin for item in chunk], pa.string()),
            "label": pa.array([item.label for item in chunk], pa.string()),
            "features": features,
            "reason": pa.array([item.reason for item in chunk], pa.string()),
        }
    )


def _engine(featurizer: Featurizer) -> Engine:
    """Return the network of this worker process, fetching its files where they are missing."""
    folder = featurizer.cache / featurizer.model.key
    for name in featurizer.model.files:
        if not (folder / name).is_file():
            featurizer.storage.download(featurizer.model_location / name, folder / name)
    return engine_for(replace(featurizer.model, folder=str(folder)), featurizer.threads)
