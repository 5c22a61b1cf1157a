"""Images -> feature vectors, on Spark.

The images are cut into parts; a task turns one part into one Parquet file. In each Python worker
three things go on at the same time: bytes are fetched (many requests in flight), images are decoded
and resized, and the network runs on full batches. The JVM sees keys and counts, and neither bytes
nor pixels nor vectors.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from queue import SimpleQueue
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa

from toolkit.dataset import DamagedPart, Dataset, vectors_column
from toolkit.images.decode import UnreadableImage, decode_image
from toolkit.models import fetch_prepared, load_engine
from toolkit.storage import Location, ObjectNotFound, Storage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from toolkit.images.listing import ImageObject
    from toolkit.models import Engine, PreparedModel

__all__ = [
    "PLAN_VERSION",
    "FeaturizePart",
    "Featurizer",
    "Part",
    "PartDone",
    "Unreadable",
    "plan_parts",
]

PLAN_VERSION = 1
"""Raised whenever `plan_parts` cuts otherwise: a run is continued on the same parts only."""

# A part is the unit of retry, of balance and of progress: some seconds of a core's work, so that
# starting it does not show and the last one does not keep others waiting.
_PART_MULTIPLY_ADDS = 400e9
_MOST_IMAGES = 768
_LEAST_IMAGES = 24
_LEAST_PARTS = 16
# A part is so many whole batches of any engine, or nearly: a batch that is not full costs as much
# as a full one (51 images of ResNet50 in batches of 6 as much as 54).
_STEP = 24
_PART_BYTES = 64 << 20

# Requests in flight per worker: at the 30 ms that S3 takes, 1,000 small images a second.
_FETCHES_IN_FLIGHT = 32
# Images ahead of the network, and bytes of their files, at most. At half as many images it fetches
# again: one at a time, each would cost the store and the kernel twice as much, and the network its
# cache.
_IMAGES_AHEAD = 512
_BYTES_AHEAD = 64 << 20
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
class Part:
    """Consecutive images of a listing that make one file of features.

    Parameters
    ----------
    number
        Its place among the parts, from 0.
    images
        Its images.
    attempted
        Whether an earlier attempt of the run may have finished it.
    """

    number: int
    images: tuple[ImageObject, ...]
    attempted: bool = False


@dataclass(frozen=True, slots=True)
class PartDone:
    """What became of a part: number of vectors, the unreadable images, whether it was there."""

    number: int
    featurized: int
    unreadable: tuple[Unreadable, ...]
    reused: bool = False


def plan_parts(
    images: Iterable[ImageObject], *, count: int, multiply_adds: float, attempted: bool = False
) -> Iterator[Part]:
    """Cut the images into parts, in their order; the same images always into the same parts.

    Parameters
    ----------
    images
        What to featurize; read as the parts are taken.
    count
        Number of images, at least as many as there are.
    multiply_adds
        Arithmetic of the network for one image.
    attempted
        Whether an earlier attempt may have finished some.

    Yields
    ------
    Part
        Some seconds of work and at most 64 MiB of files; only an image that is larger alone has
        more.
    """
    most = _images_per_part(count, multiply_adds)
    number, size = 0, 0
    part: list[ImageObject] = []
    for image in images:
        if part and (len(part) == most or size + image.size > _PART_BYTES):
            yield Part(number, tuple(part), attempted)
            number, size = number + 1, 0
            part = []
        part.append(image)
        size += image.size
    if part:
        yield Part(number, tuple(part), attempted)


def _images_per_part(count: int, multiply_adds: float) -> int:
    worth = int(_PART_MULTIPLY_ADDS / multiply_adds)
    most = min(worth, count // _LEAST_PARTS, _MOST_IMAGES)
    return max(most // _STEP * _STEP, _LEAST_IMAGES)


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

    def __call__(self, images: Sequence[ImageObject]) -> tuple[NDArray[np.float32], dict[int, str]]:
        """Compute the features of the images.

        Returns
        -------
        vectors : ndarray of shape (n, dimensions), float32
            One row an image, in their order; of an unreadable image, anything.
        reasons : dict
            For each unreadable image its index and why.
        """
        engine = _engine(self)
        loader = _Loader(self.storage, engine.input_size)
        loaded = _as_completed(
            loader,
            images,
            threads=_FETCHES_IN_FLIGHT,
            ahead=_IMAGES_AHEAD,
            bytes_ahead=_BYTES_AHEAD,
        )
        return _infer(engine, loaded, len(images))


@dataclass(frozen=True)
class FeaturizePart:
    """The task: writes the features of a part, and says what became of its images.

    The file's metadata keeps the unreadable images, so that vectors and reasons of a part appear
    together or not at all.
    """

    featurizer: Featurizer
    features: Dataset

    def __call__(self, part: Part) -> PartDone:
        """Featurize a part, unless an earlier attempt of the run has."""
        done = self._done_before(part) if part.attempted else None
        return done or self._featurize(part)

    def _featurize(self, part: Part) -> PartDone:
        vectors, reasons = self.featurizer(part.images)
        readable = [index for index in range(len(part.images)) if index not in reasons]
        unreadable = tuple(
            Unreadable(part.images[index].origin, reasons[index]) for index in sorted(reasons)
        )
        table = pa.table(
            {
                "origin": pa.array([part.images[i].origin for i in readable], pa.string()),
                "label": pa.array([part.images[i].label for i in readable], pa.string()),
                "features": vectors_column(vectors[readable] if reasons else vectors),
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


class _Loaded(NamedTuple):
    """One image: its place among the images; its file or its pixels, or why there are neither."""

    place: int
    file: bytes = b""
    pixels: NDArray[np.uint8] | None = None
    reason: str | None = None


class _Loader:
    """Fetches one image, and decodes it where its file is large; called from several threads."""

    def __init__(self, storage: Storage, size: tuple[int, int]) -> None:
        self._storage = storage
        self._size = size
        self._decoding = Lock()

    def __call__(self, place: int, image: ImageObject) -> _Loaded:
        try:
            file = self._storage.read(Location.parse(image.origin))
            if len(file) <= _SMALL_FILE:
                return _Loaded(place, file=file)
            with self._decoding:
                return _Loaded(place, pixels=decode_image(file, size=self._size))
        except ObjectNotFound:
            return _Loaded(place, reason="the object disappeared after it was listed")
        except UnreadableImage as exc:
            return _Loaded(place, reason=exc.reason)


def _as_completed(
    function: Callable[[int, ImageObject], _Loaded],
    images: Sequence[ImageObject],
    *,
    threads: int,
    ahead: int,
    bytes_ahead: int,
) -> Iterator[_Loaded]:
    """Yield ``function(index, image)`` as each is done: a large image keeps no other waiting.

    Begun and not yet taken are at most `ahead` images, and `bytes_ahead` bytes of files (one image
    may be larger). Of images, the next are begun when half of them are left.
    """
    results: SimpleQueue[_Loaded | BaseException] = SimpleQueue()
    in_flight = size = 0

    def call(index: int, image: ImageObject) -> None:
        try:
            results.put(function(index, image))
        except BaseException as exc:  # noqa: BLE001 - raised by the reader
            results.put(exc)

    def take() -> _Loaded:
        nonlocal in_flight, size
        result = results.get()
        if isinstance(result, BaseException):
            raise result
        in_flight -= 1
        size -= images[result.place].size
        return result

    pool = ThreadPoolExecutor(threads)
    try:
        for index, image in enumerate(images):
            if in_flight >= ahead:
                while in_flight > ahead // 2:
                    yield take()
            while in_flight and size + image.size > bytes_ahead:
                yield take()
            in_flight += 1
            size += image.size
            pool.submit(call, index, image)
        while in_flight:
            yield take()
    finally:
        pool.shutdown(cancel_futures=True)


def _infer(
    engine: Engine, loaded: Iterable[_Loaded], count: int
) -> tuple[NDArray[np.float32], dict[int, str]]:
    """Run the network on batches of what was loaded."""
    vectors = np.zeros((count, engine.dimensions), np.float32)
    batch = np.empty((engine.batch_size, *engine.input_size, 3), np.uint8)
    places: list[int] = []
    reasons: dict[int, str] = {}

    def flush() -> None:
        vectors[places] = engine.featurize(batch[: len(places)])
        places.clear()

    for item in loaded:
        try:
            batch[len(places)] = _pixels(item, engine.input_size)
        except UnreadableImage as exc:
            reasons[item.place] = exc.reason
            continue
        places.append(item.place)
        if len(places) == len(batch):
            flush()
    if places:
        flush()
    return vectors, reasons


def _pixels(item: _Loaded, size: tuple[int, int]) -> NDArray[np.uint8]:
    if item.reason is not None:
        raise UnreadableImage(item.reason)
    return decode_image(item.file, size=size) if item.pixels is None else item.pixels


@lru_cache(maxsize=1)
def _engine(featurizer: Featurizer) -> Engine:
    """Return the network of this worker process, loaded once."""
    model = fetch_prepared(featurizer.model, cache=featurizer.cache, bucket=featurizer.storage)
    return load_engine(model, threads=featurizer.threads)
