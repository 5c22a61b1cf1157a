"""Images in, a dataset of their features out: what a run and a training begin with."""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from toolkit.errors import JobError
from toolkit.features import FeaturizeParts, Featurizer
from toolkit.folders import cache_folder
from toolkit.images.listing import ImageListing, list_images, mirror_folder, mirror_location
from toolkit.images.sample import ImageSample, read_from
from toolkit.jobs import run_tasks, slots
from toolkit.models import (
    CALIBRATION_IMAGES,
    DEFAULT_MODEL,
    Calibration,
    EngineName,
    Precision,
    check_setting,
    measure_fidelity,
    model_spec,
    prepare,
    resolve_weights,
)
from toolkit.parts import plan_parts, plan_tasks
from toolkit.runs import Counts
from toolkit.session import spark_session
from toolkit.storage import Location, Storage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from pyspark.sql import SparkSession

    from toolkit.dataset import Dataset
    from toolkit.features import PartDone, Unreadable
    from toolkit.models import Fidelity, ModelSpec, PreparedModel, ResolvedWeights
    from toolkit.profiles import Profile
    from toolkit.progress import Progress

__all__ = [
    "NetworkRequest",
    "Stages",
    "expect",
    "extract",
    "find_weights",
    "list_source",
    "make_featurizer",
    "prepare_network",
    "session_beside",
]

# Rows of one file of the quarantine.
_QUARANTINE_ROWS = 65_536
_REASONS_SHOWN = 3
# What a setting costs is told by so many images: a second's work.
_JUDGED_IMAGES = 64
# So far beyond every second of those that int8 was calibrated on, which is between two of them.
_BESIDE = 0.25


@dataclass(frozen=True, kw_only=True)
class NetworkRequest:
    """Which network is to make the features, and how.

    Parameters
    ----------
    model
        Name of a network of the zoo.
    weights
        ``imagenet``, a file, a URI, or ``random:SEED``.
    engine
        ``openvino`` or ``tensorflow``.
    precision
        ``auto`` (the fastest that keeps the features), ``f32``, ``bf16`` or ``int8``.
    input_size
        Height and width of the images in pixels; None for the network's own size.
    """

    model: str = DEFAULT_MODEL
    weights: str = "imagenet"
    engine: EngineName = "openvino"
    precision: Precision = "auto"
    input_size: int | None = None

    @property
    def spec(self) -> ModelSpec:
        """The network; RequestError if the zoo has none of this name."""
        return model_spec(self.model)


class Stages:
    """Times the stages of a piece of work and tells their progress.

    Attributes
    ----------
    progress
        Who is told.
    seconds
        Wall time of each stage that is done, by its name.
    done_here
        Images that were featurized or quarantined, not counting those found done.
    """

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.seconds: dict[str, float] = {}
        self.done_here = 0

    @contextmanager
    def __call__(self, name: str, title: str, *, total: int | None = None) -> Iterator[None]:
        """Open a stage, and close it at the end of the block."""
        self.progress.begin(title, total=total)
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = round(time.perf_counter() - begin, 3)
            self.progress.end(self.seconds[name])

    @property
    def images_per_second(self) -> float | None:
        """Images that this attempt finished over the time that took; None if all were there."""
        seconds = self.seconds.get("features")
        return round(self.done_here / seconds, 1) if self.done_here and seconds else None


def list_source(
    images: str, storage: Storage, *, limit: int | None = None, progress: Progress
) -> ImageListing:
    """List the images that are asked for; a folder is mirrored to the bucket first.

    Parameters
    ----------
    images
        A folder, or the ``s3://`` / ``s3a://`` URI of images in a bucket.
    storage
        The store.
    limit
        At most so many images, evenly spaced over the listing; None for all.
    progress
        Is told what was uploaded and left out.

    Raises
    ------
    RequestError
        There are none.
    """
    if "://" in images:
        listing = list_images(storage, Location.parse(images))
    else:
        path = Path(images).expanduser().resolve()
        target = mirror_location(path, storage)
        progress.say(f"{path} -> {target.uri}")
        listing, mirrored = mirror_folder(
            path, storage, location=target, on_progress=progress.advance_to
        )
        progress.say(f"{mirrored.uploaded} uploaded, {mirrored.unchanged} unchanged")
        if mirrored.extra:
            progress.say(f"{mirrored.extra} images below {target.uri} are not in {path}: left out")
    if listing.skipped:
        progress.say(
            f"{listing.skipped} files are no images by their names, or links to nothing: skipped"
        )
    return listing if limit is None else listing.evenly_spaced(limit)


def find_weights(request: NetworkRequest, storage: Storage) -> ResolvedWeights:
    """Find the weights of a network, and refuse a size, an engine or a precision that there is not.

    Raises
    ------
    RequestError
        There are no such weights, or no such setting.
    """
    check_setting(request.engine, request.precision)
    request.spec.resolve_size(request.input_size)
    return resolve_weights(request.spec, request.weights, cache=cache_folder(), bucket=storage)


def prepare_network(
    request: NetworkRequest, weights: ResolvedWeights, *, listing: ImageListing, storage: Storage
) -> tuple[PreparedModel, Fidelity | None]:
    """Convert the network; where the setting is not the network's own, measure what it costs.

    Parameters
    ----------
    request
        The network and its setting.
    weights
        From `find_weights`.
    listing
        Images that int8 is calibrated on, and that tell the cost.
    storage
        The store, which may hold the network converted.
    """
    cache, spec, read = cache_folder(), request.spec, read_from(storage)
    sample = ImageSample(read, listing.evenly_spaced(CALIBRATION_IMAGES))
    model = prepare(
        spec,
        weights,
        engine=request.engine,
        precision=request.precision,
        input_size=request.input_size,
        calibration=Calibration(identity=sample.identity, images=sample),
        cache=cache,
        bucket=storage,
    )
    if model.precision in {"auto", "f32"} and model.input_size == spec.input_size:
        return model, None
    native = prepare(spec, weights, precision="f32", cache=cache, bucket=storage)
    judges = ImageSample(read, listing.evenly_spaced(_JUDGED_IMAGES, shift=_BESIDE))
    try:
        return model, measure_fidelity(model, native, judges)
    except ValueError:  # fewer than two readable images
        return model, None


def make_featurizer(model: PreparedModel, storage: Storage) -> Featurizer:
    """Put the converted network where executors find it, once, and describe the work."""
    location = storage.location("models", "prepared", model.key)
    there = {entry.location.key for entry in storage.objects(location)}
    for name in model.files:
        target = location / name
        if target.key not in there:
            storage.upload(Path(model.folder) / name, target, in_parts=True)
    return Featurizer(model, storage, cache_folder())


@contextmanager
def session_beside(
    spark: SparkSession | None, profile: Profile, *, log: Path, stages: Stages
) -> Iterator[Callable[[], SparkSession]]:
    """Start Spark beside what the block does first; give the function that waits for it.

    Parameters
    ----------
    spark
        A session to use instead.
    profile
        Where.
    log
        File that takes Spark's own messages.
    stages
        Gets the stage ``spark``.
    """
    if spark is not None:
        yield lambda: spark
        return
    with ExitStack() as exits, ThreadPoolExecutor(1) as beside:

        def start() -> SparkSession:
            begin = time.perf_counter()
            session = exits.enter_context(spark_session(profile, app="toolkit", log=log))
            stages.seconds["spark"] = round(time.perf_counter() - begin, 3)
            return session

        starting = beside.submit(start)

        def wait() -> SparkSession:
            stages.progress.begin("Spark session")
            try:
                return starting.result()
            finally:
                stages.progress.end(stages.seconds.get("spark", 0.0))

        yield wait


def extract(  # noqa: PLR0913 - from where, with what, to where
    spark: SparkSession,
    listing: ImageListing,
    featurizer: Featurizer,
    *,
    features: Dataset,
    quarantine: Dataset,
    stages: Stages,
    attempted: bool = False,
) -> Counts:
    """Compute the features of all images; what can't be read goes to the quarantine.

    Parameters
    ----------
    spark
        The session.
    listing
        The images.
    featurizer
        From `make_featurizer`.
    features
        Gets ``origin``, ``label`` and ``features`` of each image.
    quarantine
        Gets ``origin`` and ``reason`` of each image that can't be read.
    stages
        Gets the stage ``features``.
    attempted
        Whether an earlier attempt may have done some.

    Raises
    ------
    JobError
        An image was lost or doubled, or none could be read.
    """
    with stages("features", "Features", total=len(listing)):
        parts = plan_parts(
            listing,
            count=len(listing),
            multiply_adds=featurizer.model.multiply_adds,
            attempted=attempted,
        )
        tasks = run_tasks(
            spark,
            plan_tasks(parts, count=len(listing), slots=lambda: slots(spark)),
            FeaturizeParts(featurizer, features),
            weight=lambda task: sum(len(part.images) for part in task),
            on_done=stages.progress.advance_to,
        )
        with closing(tasks) as done:
            counts = _account(chain.from_iterable(done), quarantine=quarantine, stages=stages)
        _reconcile(counts, len(listing), quarantine)
        features.complete()
        if attempted:
            before = len(listing) - stages.done_here
            stages.progress.say(f"{before} of {len(listing)} images were done before")
    return counts


def _account(done: Iterable[PartDone], *, quarantine: Dataset, stages: Stages) -> Counts:
    """Count what became of the parts, and write the unreadable images to the quarantine."""
    featurized = quarantined = 0
    rows: list[Unreadable] = []
    files = 0
    for part in done:
        featurized += part.featurized
        quarantined += len(part.unreadable)
        if not part.reused:
            stages.done_here += part.featurized + len(part.unreadable)
        rows += part.unreadable
        if len(rows) >= _QUARANTINE_ROWS:
            quarantine.write(files, _quarantine_table(rows))
            files += 1
            rows = []
    if rows or not files:  # readers want a file, even an empty one
        quarantine.write(files, _quarantine_table(rows))
    quarantine.complete()
    return Counts(featurized + quarantined, featurized, quarantined)


def _quarantine_table(rows: Sequence[Unreadable]) -> pa.Table:
    return pa.table(
        {
            "origin": pa.array([row.origin for row in rows], pa.string()),
            "reason": pa.array([row.reason for row in rows], pa.string()),
        }
    )


def _reconcile(counts: Counts, listed: int, quarantine: Dataset) -> None:
    """Insist that every listed image has ended in one place, and that there is something to go on.

    Raises
    ------
    JobError
        An image is missing, or none could be read.
    """
    expect(counts.listed, listed, "images were featurized or quarantined")
    if counts.featurized:
        return
    reasons = Counter(
        reason
        for table in quarantine.tables(columns=["reason"])
        for reason in table["reason"].to_pylist()
    )
    shown = "; ".join(f"{times} x {why}" for why, times in reasons.most_common(_REASONS_SHOWN))
    raise JobError(
        f"None of the {listed} images could be read: {shown}.",
        remedy=f"See {quarantine.location.uri} for each image's reason.",
    )


def expect(found: int, expected: int, what: str) -> None:
    """Insist that nothing was lost or doubled.

    Raises
    ------
    JobError
        There are more or fewer than there should be.
    """
    if found != expected:
        raise JobError(
            f"{found} {what}, and it should be {expected}.",
            remedy="Begin anew (`toolkit run --fresh`); if it stays, please report it with the "
            "record, run.json or train.json.",
        )
