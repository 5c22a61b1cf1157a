"""Images -> feature vectors, on Spark.

A task turns some parts of the images into as many Parquet files. In each Python worker four things
go on at the same time, across the parts of its task: bytes are fetched (many requests in flight),
images are decoded and resized, the network runs on full batches, and the file of the part before is
written. The JVM sees keys and counts, and neither bytes nor pixels nor vectors.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
from pyspark import TaskContext

from toolkit.ahead import Limits, as_completed
from toolkit.dataset import DamagedPart, Dataset, vectors_column
from toolkit.images.decode import UnreadableImage, decode_image
from toolkit.inference import infer
from toolkit.models import fetch_prepared, load_engine
from toolkit.storage import Location, ObjectNotFound, Storage

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Sequence
    from concurrent.futures import Future
    from pathlib import Path

    from numpy.typing import NDArray

    from toolkit.images.listing import ImageObject
    from toolkit.models import Engine, PreparedModel
    from toolkit.parts import Part

__all__ = ["FeaturizeParts", "Featurized", "Featurizer", "PartDone", "Unreadable"]


# 32 requests in flight per worker: at the 30 ms that S3 takes, 1,000 small images a second. At half
# of the images ahead of the network it fetches again: one at a time, each would cost the store and
# the kernel twice as much, and the network its cache.
_FETCHING = Limits(threads=32, items=512, size=64 << 20)
# A larger file is decoded beside the network, one at a time, so that it neither keeps small ones
# waiting nor fills the memory. Small ones are decoded between two batches: handing each to another
# thread costs half as much again as decoding it (100 x 100 pixels: 380 us instead of 240).
_SMALL_FILE = 256 << 10

_UNREADABLE = "unreadable"  # in the metadata of a part's file


class Unreadable(NamedTuple):
    """An image that could not be read, and why."""

    origin: str
    reason: str


@dataclass(frozen=True, slots=True)
class PartDone:
    """What became of a part: number of vectors, the unreadable images, whether it was there."""

    number: int
    featurized: int
    unreadable: tuple[Unreadable, ...]
    reused: bool = False


@dataclass(frozen=True)
class Featurizer:
    """What an executor needs to turn images into vectors; small and picklable.

    Parameters
    ----------
    model
        The converted network.
    storage
        Where images are, and the network in ``models/prepared/`` for executors that lack it.
    cache
        The executor's cache folder, which keeps converted networks.
    threads
        Threads of the inference engine in one worker process (at least 1).
    """

    model: PreparedModel
    storage: Storage
    cache: Path
    threads: int = 1

    def __call__(self, parts: Iterable[Part]) -> Generator[Featurized, None, None]:
        """Compute the features of parts, one after another, without a pause between.

        Parameters
        ----------
        parts
            Taken as they are needed, while the images of those before are computed.

        Yields
        ------
        Featurized
            Each part when its last image is done: one with a large image may come after the next.
        """
        parts = iter(parts)
        first = next(parts, None)
        if first is None:
            return
        engine = _engine(self)  # not before there is something to do
        begun: dict[int, Featurized] = {}

        def images() -> Iterator[_Place]:
            for part in chain([first], parts):
                vectors = np.zeros((len(part.images), engine.dimensions), np.float32)
                begun[part.number] = Featurized(part, vectors)
                yield from (_Place(part, index) for index in range(len(part.images)))

        loaded = as_completed(
            _Loader(self.storage, engine.input_size),
            images(),
            size=lambda place: place.image.size,
            limits=_FETCHING,
        )
        with closing(loaded):
            pixels = ((each.place, _pixels(each, engine.input_size)) for each in loaded)
            for place, result in infer(engine.compute, pixels, batch_size=engine.batch_size):
                featurized = begun[place.part.number]
                featurized.take(place.row, result)
                if featurized.complete:
                    yield begun.pop(place.part.number)


@dataclass
class Featurized:
    """The features of a part.

    Parameters
    ----------
    part
        The part, of n images.
    vectors : ndarray of shape (n, dimensions), float32
        One row an image, in their order; of an unreadable image, zeros.
    reasons
        For each unreadable image its row and why.
    """

    part: Part
    vectors: NDArray[np.float32]
    reasons: dict[int, str] = field(default_factory=dict)
    _computed: int = field(default=0, init=False)

    def take(self, row: int, result: NDArray[np.float32] | str) -> None:
        """Put down an image's vector, or why it has none."""
        if isinstance(result, str):
            self.reasons[row] = result
        else:
            self.vectors[row] = result
            self._computed += 1

    @property
    def complete(self) -> bool:
        """Whether every image has its vector or its reason."""
        return self._computed + len(self.reasons) == len(self.part.images)


@dataclass(frozen=True)
class FeaturizeParts:
    """The task: writes the features of some parts, and says what became of their images.

    A file's metadata keeps the unreadable images, so that vectors and reasons of a part appear
    together or not at all.
    """

    featurizer: Featurizer
    features: Dataset

    def __call__(self, parts: Sequence[Part]) -> list[PartDone]:
        """Featurize the parts, but for those that an earlier attempt, of run or task, has done.

        Returns
        -------
        list of PartDone
            In the order of their numbers.
        """
        done: list[PartDone] = []
        task = TaskContext.get()
        repeated = task is not None and task.attemptNumber() > 0

        def missing() -> Iterator[Part]:
            for part in parts:
                before = self._done_before(part) if part.attempted or repeated else None
                if before:
                    done.append(before)
                else:
                    yield part

        # No more than one file is being written, while the next parts are computed.
        with (
            ThreadPoolExecutor(1) as writer,
            closing(self.featurizer(missing())) as featurized,
        ):
            writing: Future[PartDone] | None = None
            for each in featurized:
                if writing:
                    done.append(writing.result())
                writing = writer.submit(self._write, each)
            if writing:
                done.append(writing.result())
        assert len(done) == len(parts)  # noqa: S101 - nothing is lost silently
        return sorted(done, key=lambda part: part.number)

    def _write(self, featurized: Featurized) -> PartDone:
        part, reasons = featurized.part, featurized.reasons
        readable = [index for index in range(len(part.images)) if index not in reasons]
        unreadable = tuple(
            Unreadable(part.images[index].origin, reasons[index]) for index in sorted(reasons)
        )
        vectors = featurized.vectors[readable] if reasons else featurized.vectors
        table = pa.table(
            {
                "origin": pa.array([part.images[i].origin for i in readable], pa.string()),
                "label": pa.array([part.images[i].label for i in readable], pa.string()),
                "features": vectors_column(vectors),
            }
        )
        self.features.write(part.number, table, metadata={_UNREADABLE: json.dumps(unreadable)})
        return PartDone(part.number, len(readable), unreadable)

    def _done_before(self, part: Part) -> PartDone | None:
        """Return what an earlier attempt made of the part; None if it is not all there."""
        try:
            table = self.features.read(part.number, columns=["origin"])
            kept = table.schema.metadata[_UNREADABLE.encode()]
        except (ObjectNotFound, DamagedPart, KeyError, TypeError):  # or of another version
            return None
        unreadable = tuple(Unreadable(*each) for each in json.loads(kept))
        origins = {*table["origin"].to_pylist(), *(each.origin for each in unreadable)}
        if origins != {image.origin for image in part.images}:
            return None
        return PartDone(part.number, table.num_rows, unreadable, reused=True)


class _Place(NamedTuple):
    """Where an image belongs: its part, and its row there."""

    part: Part
    row: int

    @property
    def image(self) -> ImageObject:
        return self.part.images[self.row]


class _Loaded(NamedTuple):
    """One image: its place; its file or its pixels, or why there are neither."""

    place: _Place
    file: bytes = b""
    pixels: NDArray[np.uint8] | None = None
    reason: str | None = None


class _Loader:
    """Fetches one image, and decodes it where its file is large; called from several threads."""

    def __init__(self, storage: Storage, size: tuple[int, int]) -> None:
        self._storage = storage
        self._size = size
        self._decoding = Lock()

    def __call__(self, place: _Place) -> _Loaded:
        try:
            file = self._storage.read(Location.parse(place.image.origin))
            if len(file) <= _SMALL_FILE:
                return _Loaded(place, file=file)
            with self._decoding:
                return _Loaded(place, pixels=decode_image(file, size=self._size))
        except ObjectNotFound:
            return _Loaded(place, reason="the object disappeared after it was listed")
        except UnreadableImage as exc:
            return _Loaded(place, reason=exc.reason)


def _pixels(item: _Loaded, size: tuple[int, int]) -> NDArray[np.uint8] | str:
    if item.reason is not None:
        return item.reason
    try:
        return decode_image(item.file, size=size) if item.pixels is None else item.pixels
    except UnreadableImage as exc:
        return exc.reason


@lru_cache(maxsize=1)
def _engine(featurizer: Featurizer) -> Engine:
    """Return the network of this worker process, loaded once."""
    model = fetch_prepared(featurizer.model, cache=featurizer.cache, bucket=featurizer.storage)
    return load_engine(model, threads=featurizer.threads)
