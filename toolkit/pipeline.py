"""The run: labelled images in, principal components of their features out."""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import json
import platform
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq

from toolkit import report
from toolkit.errors import JobError, RequestError, ToolkitError
from toolkit.features import Featurizer, featurize
from toolkit.folders import cache_folder
from toolkit.images.listing import ImageListing, evenly_spaced, list_images, mirror_folder
from toolkit.models import (
    DEFAULT_MODEL,
    EngineName,
    Precision,
    executed_precision,
    model_spec,
    prepare,
    resolve_weights,
)
from toolkit.pca import fit_pca
from toolkit.progress import Progress, Silent
from toolkit.runs import RUNS, Counts, Owner, RunFolder, RunRecord, all_runs, new_run_id, now
from toolkit.session import slots, spark_errors, spark_session, watch_tasks
from toolkit.storage import Location, ObjectNotFound, Storage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pyspark.sql import DataFrame, SparkSession

    from toolkit.images.listing import ImageObject
    from toolkit.models import PreparedModel
    from toolkit.pca import PCAModel
    from toolkit.profiles import Profile

__all__ = ["RunRequest", "run"]

# Features are committed wave by wave: an interrupted run loses one wave at most. Large enough that
# the wait for a wave's last partition does not show.
_WAVE_IMAGES = 8_192
_REASONS_SHOWN = 3
_PICTURED_IMAGES = 2_000
# Each costs a request; an older run than that is not missed.
_RUNS_CONSIDERED = 50


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """What a run is asked for.

    Parameters
    ----------
    images
        A folder, or the ``s3://`` / ``s3a://`` URI of images in a bucket.
    model
        Name of a network of the zoo.
    weights
        ``imagenet``, a file, a URI, or ``random:SEED``.
    components
        Share of the variance to explain (0 to 1, float) or number of components (int).
    engine
        ``openvino`` or ``tensorflow``.
    precision
        ``auto`` (the fastest that the processor has natively) or ``f32``.
    limit
        At most so many images, evenly spaced over the listing; None for all.
    fresh
        Start anew even where an unfinished run of the same request could be continued.
    output
        URI to write ``result/`` to instead of the run's own folder.
    """

    images: str
    model: str = DEFAULT_MODEL
    weights: str = "imagenet"
    components: float | int = 0.95
    engine: EngineName = "openvino"
    precision: Precision = "auto"
    limit: int | None = None
    fresh: bool = False
    output: str | None = None


def run(
    request: RunRequest,
    profile: Profile,
    *,
    log: Path,
    progress: Progress | None = None,
    spark: SparkSession | None = None,
) -> RunRecord:
    """Run the pipeline and return its record, which is also written to ``run.json``.

    Parameters
    ----------
    request
        What to do.
    profile
        Where.
    log
        File that takes Spark's own messages.
    progress
        Who is told; default: nobody.
    spark
        A session to run in; default: one of its own on the profile's master.

    Raises
    ------
    RequestError
        The request can't be fulfilled as it stands; nothing was started.
    JobError
        The run failed; the record says so too.
    """
    stages = _Stages(progress or Silent())
    storage = Storage(profile.s3)
    output = Location.parse(request.output) if request.output else None

    with stages("images", "Images"):
        listing = _list(request, storage, stages.progress)
        if output is not None:
            _check_output(output, listing, storage)
    with stages("model", f"Model {request.model}"):
        model = _prepare(request, storage)
    folder, record = _open_run(request, profile, listing=listing, model=model)
    result = output or folder.file("result")

    with (
        _recording_failure(folder, record),
        spark_errors(log),
        _session(spark, profile, log, stages) as session,
    ):
        with stages("features", "Features", total=len(listing.images)):
            featurizer = _featurizer(model, storage)
            _featurize(session, listing.images, featurizer, folder=folder, stages=stages)
            features = session.read.parquet(folder.file("features").uri)
            counts = _reconcile(session, len(listing.images), folder)
        with stages("pca", "PCA"):
            pca = fit_pca(features, components=request.components)
            storage.write(folder.file("pca.npz"), _npz(pca))
        with stages("result", "Result"):
            projected = pca.project(features).drop("features")
            projected.write.mode("overwrite").parquet(result.uri)
            sample = _sample(storage, result)
        record = replace(
            record,
            status="done",
            finished_at=now(),
            counts=counts,
            components=len(pca.components),
            explained_variance=float(pca.explained_variance_ratio.sum()),
            seconds=stages.seconds,
            images_per_second=stages.images_per_second,
            uris={**record.uris, "result": result.uri},
        )
        html = report.render(record, pca.explained_variance_ratio, sample)
        storage.write(folder.file("report.html"), html.encode())
        folder.save(record)
    return record


class _Stages:
    """Times the stages of a run and tells the progress of them."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.seconds: dict[str, float] = {}
        self.done_here = 0

    @contextmanager
    def __call__(self, name: str, title: str, *, total: int | None = None) -> Iterator[None]:
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


class _Bucket:
    """The store as the model zoo sees it: a place that may hold weights."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.name = storage.settings.bucket

    def fetch(self, uri: str, to: Path) -> bool:
        try:
            self._storage.download(Location.parse(uri), to)
        except ObjectNotFound:
            return False
        return True


def _list(request: RunRequest, storage: Storage, progress: Progress) -> ImageListing:
    if "://" in request.images:
        listing = list_images(storage, Location.parse(request.images))
    else:
        path = Path(request.images).expanduser().resolve()
        target = storage.location("images", path.name)
        progress.say(f"{path} -> {target.uri}")
        listing, mirrored = mirror_folder(
            path, storage, location=target, on_progress=progress.advance_to
        )
        progress.say(f"{mirrored.uploaded} uploaded, {mirrored.unchanged} unchanged")
        if mirrored.extra:
            progress.say(f"{mirrored.extra} images below {target.uri} are not in {path}: left out")
    if listing.skipped:
        progress.say(f"{listing.skipped} files are no images by their names: skipped")
    if request.limit is not None:
        listing = replace(listing, images=evenly_spaced(listing.images, request.limit))
    return listing


def _check_output(output: Location, listing: ImageListing, storage: Storage) -> None:
    """Refuse a place whose content a result would replace, unless that is an earlier result.

    Raises
    ------
    RequestError
        It is a whole bucket, touches the toolkit's own folders or the images, or holds objects
        that are no result.
    """
    own = [storage.location(name) for name in ("images", "models", RUNS)]
    if not output.key or any(output.overlaps(other) for other in [*own, listing.location]):
        raise RequestError(
            f"{output.uri} can't take the result: what is there would be deleted.",
            remedy="Name a prefix of its own, for example "
            f"{storage.location('results', 'fruits').uri}.",
        )
    for entry in storage.objects(output):
        name = entry.location.key.rpartition("/")[2]
        if not (name == "_SUCCESS" or name.endswith(".parquet") or entry.location == output):
            raise RequestError(
                f"{output.uri} holds {name}, which is no part of a result and would be deleted.",
                remedy="Name an empty prefix, or one with an earlier result.",
            )


def _prepare(request: RunRequest, storage: Storage) -> PreparedModel:
    cache = cache_folder()
    spec = model_spec(request.model)
    weights = resolve_weights(spec, request.weights, cache=cache, bucket=_Bucket(storage))
    return prepare(spec, weights, engine=request.engine, precision=request.precision, cache=cache)


def _featurizer(model: PreparedModel, storage: Storage) -> Featurizer:
    """Put the converted network where executors find it, once, and describe the work."""
    location = storage.location("models", "prepared", model.key)
    there = {entry.location.key for entry in storage.objects(location)}
    for name in model.files:
        target = location / name
        if target.key not in there:
            storage.upload(Path(model.folder) / name, target)
    return Featurizer(model, storage, location, cache_folder() / "prepared")


def _open_run(
    request: RunRequest, profile: Profile, *, listing: ImageListing, model: PreparedModel
) -> tuple[RunFolder, RunRecord]:
    """Continue the newest unfinished run of the same request, or begin one."""
    storage = Storage(profile.s3)
    fingerprint = _fingerprint(listing, model)
    unfinished = None if request.fresh else _unfinished(storage, fingerprint)
    run_id = unfinished.run_id if unfinished else new_run_id()
    folder = RunFolder(storage, run_id)
    record = RunRecord(
        run_id=run_id,
        status="running",
        profile=profile.name,
        images=listing.location.uri,
        model=model.name,
        weights=request.weights,
        weights_sha256=model.weights_sha256,
        random_weights=model.random_weights,
        engine=request.engine,
        precision=executed_precision(model),
        fingerprint=fingerprint,
        owner=Owner.this_process(),
        started_at=now(),
        counts=Counts(listed=len(listing.images)),
        skipped=listing.skipped,
        labels=len({image.label for image in listing.images}),
        dimensions=model.dimensions,
        versions=_versions(),
        uris={
            name: folder.file(file).uri
            for name, file in {
                "run": "run.json",
                "features": "features",
                "quarantine": "quarantine",
                "pca": "pca.npz",
                "report": "report.html",
            }.items()
        },
    )
    folder.save(record)
    return folder, record


def _fingerprint(listing: ImageListing, model: PreparedModel) -> str:
    images = [(image.origin, image.size, image.e_tag) for image in listing.images]
    identity = [images, model.key, executed_precision(model)]
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]


def _unfinished(storage: Storage, fingerprint: str) -> RunRecord | None:
    for record in islice(all_runs(storage), _RUNS_CONSIDERED):
        if record.fingerprint == fingerprint:
            running = record.status == "running" and record.owner.may_be_alive()
            return None if record.status == "done" or running else record
    return None


@contextmanager
def _recording_failure(folder: RunFolder, record: RunRecord) -> Iterator[None]:
    try:
        yield
    except BaseException as exc:
        reason = exc.message if isinstance(exc, ToolkitError) else repr(exc)
        with suppress(ToolkitError):  # the store may be what failed
            folder.save(record.failed(reason))
        raise


@contextmanager
def _session(
    spark: SparkSession | None, profile: Profile, log: Path, stages: _Stages
) -> Iterator[SparkSession]:
    if spark is not None:
        yield spark
        return
    with ExitStack() as stack:
        with stages("spark", "Spark session"):
            session = stack.enter_context(spark_session(profile, app="toolkit run", log=log))
        yield session


def _featurize(
    spark: SparkSession,
    images: Sequence[ImageObject],
    featurizer: Featurizer,
    *,
    folder: RunFolder,
    stages: _Stages,
) -> None:
    """Write features and quarantine of the images that have neither yet, wave by wave."""
    known = _origins(spark, folder)
    todo = [image for image in images if image.origin not in known]
    already = len(images) - len(todo)
    if already:
        stages.progress.say(f"{already} images are done already: continuing")
    for start in range(0, len(todo), _WAVE_IMAGES):
        wave = todo[start : start + _WAVE_IMAGES]

        def on_done(done: int, start: int = start) -> None:
            stages.progress.advance_to(already + start + done)

        _write_wave(spark, wave, featurizer, folder=folder, on_done=on_done)
        on_done(len(wave))
    stages.done_here = len(todo)


def _write_wave(
    spark: SparkSession,
    images: Sequence[ImageObject],
    featurizer: Featurizer,
    *,
    folder: RunFolder,
    on_done: Callable[[int], None],
) -> None:
    # Kept until both outputs are written: the network runs once for vectors and reasons alike.
    rows = featurize(spark, images, featurizer=featurizer, slots=slots(spark)).persist()
    try:
        with watch_tasks(spark, lambda done, of: on_done(done * len(images) // of)):
            _append(rows.where("reason IS NULL").drop("reason"), folder.file("features"))
        unreadable = rows.where("reason IS NOT NULL").select("origin", "reason")
        _append(unreadable.coalesce(1), folder.file("quarantine"))
    finally:
        rows.unpersist()


def _append(rows: DataFrame, location: Location) -> None:
    rows.write.mode("append").parquet(location.uri)


def _origins(spark: SparkSession, folder: RunFolder) -> set[str]:
    """Return the origins that an earlier attempt of the run has finished.

    Its last commit may have been cut off: what is visible of it counts, ``_SUCCESS`` or not.
    """
    return {
        row.origin
        for part in ("features", "quarantine")
        if any(
            e.location.key.endswith(".parquet") for e in folder.storage.objects(folder.file(part))
        )
        for row in spark.read.parquet(folder.file(part).uri).select("origin").toLocalIterator()
    }


def _reconcile(spark: SparkSession, listed: int, folder: RunFolder) -> Counts:
    """Count what was written, and insist that every listed image is in exactly one place.

    Raises
    ------
    JobError
        An image is missing or there twice, or none could be read.
    """
    quarantine = spark.read.parquet(folder.file("quarantine").uri)
    features = spark.read.parquet(folder.file("features").uri)
    written = features.selectExpr("origin", "1 AS featurized").union(
        quarantine.selectExpr("origin", "0 AS featurized")
    )
    row = written.selectExpr("count(*)", "sum(featurized)", "count(DISTINCT origin)").first()
    rows, featurized, distinct = (value or 0 for value in row or (0, 0, 0))
    counts = Counts(listed, featurized, rows - featurized)
    if not listed == counts.featurized + counts.quarantined == distinct:
        raise JobError(
            f"{listed} images were listed, but {counts.featurized} were featurized and "
            f"{counts.quarantined} quarantined ({distinct} different ones).",
            remedy="Run again with --fresh; if it stays, please report it with the run's folder.",
        )
    if not counts.featurized:
        reasons = quarantine.groupBy("reason").count().orderBy("count", ascending=False)
        shown = "; ".join(f"{row[1]} x {row[0]}" for row in reasons.take(_REASONS_SHOWN))
        raise JobError(
            f"None of the {listed} images could be read: {shown}.",
            remedy=f"See {folder.file('quarantine').uri} for each image's reason.",
        )
    return counts


def _npz(pca: PCAModel) -> bytes:
    file = io.BytesIO()
    pca.save(file)
    return file.getvalue()


def _sample(storage: Storage, result: Location) -> list[tuple[str, float, float]]:
    """Return label and first two components of some images of every part of the result."""
    parts = [part for part in storage.objects(result) if part.location.key.endswith(".parquet")]
    share = -(-_PICTURED_IMAGES // max(1, len(parts)))
    sample: list[tuple[str, float, float]] = []
    for part in parts[:_PICTURED_IMAGES]:
        table = pq.read_table(io.BytesIO(storage.read(part.location)), columns=["label", "pca"])
        rows = table.slice(length=share).to_pylist()
        sample += [(row["label"], row["pca"][0], (*row["pca"], 0.0)[1]) for row in rows]
    return sample


def _versions() -> dict[str, str]:
    packages = ("fruits-toolkit", "pyspark", "openvino", "keras", "obstore", "pillow", "numpy")
    return {"python": platform.python_version()} | {
        name: importlib.metadata.version(name) for name in packages
    }
