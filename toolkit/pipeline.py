"""The run: labelled images in, principal components of their features out."""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import json
import platform
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from toolkit import report
from toolkit.dataset import Dataset
from toolkit.errors import JobError, RequestError, ToolkitError
from toolkit.features import FeaturizeParts, Featurizer
from toolkit.folders import cache_folder
from toolkit.images.listing import ImageListing, list_images, mirror_folder
from toolkit.images.sample import ImageSample
from toolkit.jobs import run_tasks, slots
from toolkit.models import (
    CALIBRATION_IMAGES,
    DEFAULT_MODEL,
    Calibration,
    EngineName,
    Precision,
    check_setting,
    executed_precision,
    measure_fidelity,
    model_spec,
    prepare,
    resolve_weights,
)
from toolkit.parts import PLAN_VERSION, plan_parts, plan_tasks
from toolkit.pca import PCAModel, fit_pca
from toolkit.progress import Progress, Silent
from toolkit.reduction import project, read_vectors
from toolkit.runs import RUNS, Counts, Owner, RunFolder, RunRecord, all_runs, new_run_id, now
from toolkit.session import spark_errors, spark_session
from toolkit.storage import Location, Storage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from pyspark.sql import SparkSession

    from toolkit.features import PartDone, Unreadable
    from toolkit.models import Fidelity, ModelSpec, PreparedModel, ResolvedWeights
    from toolkit.profiles import Profile

__all__ = ["RunRequest", "run"]

# Rows of one file of the quarantine.
_QUARANTINE_ROWS = 65_536
_REASONS_SHOWN = 3
_PICTURED_IMAGES = 2_000
# What a setting costs is told by so many images: a second's work.
_JUDGED_IMAGES = 64
# So far beyond every second of those that int8 was calibrated on, which is between two of them.
_BESIDE = 0.25
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
        ``auto`` (the fastest that keeps the features), ``f32``, ``bf16`` or ``int8``.
    input_size
        Height and width of the images in pixels; None for the network's own size.
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
    input_size: int | None = None
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

    spec = model_spec(request.model)
    with stages("images", "Images"):
        listing = _list(request, storage, stages.progress)
        if output is not None:
            _check_output(output, listing, storage)
    weights = _resolve(spec, request, storage)  # what is wrong with the request is told first
    with _session(spark, profile, log=log, stages=stages) as session:
        with stages("model", f"Model {spec.name}"):
            model, fidelity = _prepare(spec, weights, request, listing=listing, storage=storage)
            featurizer = _featurizer(model, storage)
        folder, record, continues = _open_run(request, profile, listing=listing, model=model)
        record = replace(record, fidelity=asdict(fidelity) if fidelity else None)
        features = folder.dataset("features")
        result = Dataset(storage, output or folder.file("result"))

        with _recording_failure(folder, record), spark_errors(log):
            work = session()
            with stages("features", "Features", total=len(listing)):
                parts = plan_parts(
                    listing,
                    count=len(listing),
                    multiply_adds=model.multiply_adds,
                    attempted=continues,
                )
                tasks = run_tasks(
                    work,
                    plan_tasks(parts, count=len(listing), slots=lambda: slots(work)),
                    FeaturizeParts(featurizer, features),
                    weight=lambda task: sum(len(part.images) for part in task),
                    on_done=stages.progress.advance_to,
                )
                with closing(tasks) as done:
                    parts_done = chain.from_iterable(done)
                    counts = _account(parts_done, folder=folder, stages=stages)
                _reconcile(counts, len(listing), folder)
                features.complete()
            with stages("pca", "PCA"):
                vectors = read_vectors(work, features, dimensions=model.dimensions)
                pca = fit_pca(vectors, components=request.components)
                storage.write(folder.file("pca.npz"), _npz(pca))
                _expect(pca.n_samples, counts.featurized, "vectors were read back")
            with stages("result", "Result"):
                written = project(work, pca, features, result=result, sample=_PICTURED_IMAGES)
                _expect(written.rows, counts.featurized, "rows of the result were written")
            record = replace(
                record,
                status="done",
                finished_at=now(),
                counts=counts,
                components=len(pca.components),
                explained_variance=float(pca.explained_variance_ratio.sum()),
                seconds=stages.seconds,
                images_per_second=stages.images_per_second,
                uris={**record.uris, "result": result.location.uri},
            )
            html = report.render(record, pca.explained_variance_ratio, written.sample)
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
        listing = listing.evenly_spaced(request.limit)
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


def _resolve(spec: ModelSpec, request: RunRequest, storage: Storage) -> ResolvedWeights:
    """Find the weights, and refuse a size, an engine or a precision that there is not."""
    check_setting(request.engine, request.precision)
    spec.resolve_size(request.input_size)
    return resolve_weights(spec, request.weights, cache=cache_folder(), bucket=storage)


def _prepare(
    spec: ModelSpec,
    weights: ResolvedWeights,
    request: RunRequest,
    *,
    listing: ImageListing,
    storage: Storage,
) -> tuple[PreparedModel, Fidelity | None]:
    """Convert the network; where the setting is not the network's own, measure what it costs."""
    cache = cache_folder()
    sample = ImageSample(storage, listing.evenly_spaced(CALIBRATION_IMAGES))
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
    judges = ImageSample(storage, listing.evenly_spaced(_JUDGED_IMAGES, shift=_BESIDE))
    try:
        return model, measure_fidelity(model, native, judges)
    except ValueError:  # fewer than two readable images
        return model, None


def _featurizer(model: PreparedModel, storage: Storage) -> Featurizer:
    """Put the converted network where executors find it, once, and describe the work."""
    location = storage.location("models", "prepared", model.key)
    there = {entry.location.key for entry in storage.objects(location)}
    for name in model.files:
        target = location / name
        if target.key not in there:
            storage.upload(Path(model.folder) / name, target)
    return Featurizer(model, storage, cache_folder())


def _open_run(
    request: RunRequest, profile: Profile, *, listing: ImageListing, model: PreparedModel
) -> tuple[RunFolder, RunRecord, bool]:
    """Continue the newest unfinished run of the same request (True), or begin one."""
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
        input_size=model.input_size,
        fingerprint=fingerprint,
        owner=Owner.this_process(),
        started_at=now(),
        counts=Counts(listed=len(listing)),
        skipped=listing.skipped,
        labels=listing.labels,
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
    return folder, record, unfinished is not None


def _fingerprint(listing: ImageListing, model: PreparedModel) -> str:
    identity = [listing.fingerprint, model.key, executed_precision(model), PLAN_VERSION]
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
    spark: SparkSession | None, profile: Profile, *, log: Path, stages: _Stages
) -> Iterator[Callable[[], SparkSession]]:
    """Start Spark beside what the block does first; give the function that waits for it."""
    if spark is not None:
        yield lambda: spark
        return
    with ExitStack() as exits, ThreadPoolExecutor(1) as beside:

        def start() -> SparkSession:
            begin = time.perf_counter()
            session = exits.enter_context(spark_session(profile, app="toolkit run", log=log))
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


def _account(done: Iterable[PartDone], *, folder: RunFolder, stages: _Stages) -> Counts:
    """Count what became of the parts, and write the unreadable images to the quarantine."""
    featurized = quarantined = 0
    rows: list[Unreadable] = []
    quarantine = folder.dataset("quarantine")
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


def _reconcile(counts: Counts, listed: int, folder: RunFolder) -> None:
    """Insist that every listed image has ended in one place, and that there is something to go on.

    Raises
    ------
    JobError
        An image is missing, or none could be read.
    """
    _expect(counts.listed, listed, "images were featurized or quarantined")
    if counts.featurized:
        return
    reasons = Counter(
        reason
        for table in folder.dataset("quarantine").tables(columns=["reason"])
        for reason in table["reason"].to_pylist()
    )
    shown = "; ".join(f"{times} x {why}" for why, times in reasons.most_common(_REASONS_SHOWN))
    raise JobError(
        f"None of the {listed} images could be read: {shown}.",
        remedy=f"See {folder.file('quarantine').uri} for each image's reason.",
    )


def _expect(found: int, expected: int, what: str) -> None:
    """Insist that nothing was lost or doubled.

    Raises
    ------
    JobError
        There are more or fewer than there should be.
    """
    if found != expected:
        raise JobError(
            f"{found} {what}, and it should be {expected}.",
            remedy="Run again with --fresh; if it stays, please report it with the run's folder.",
        )


def _npz(pca: PCAModel) -> bytes:
    file = io.BytesIO()
    pca.save(file)
    return file.getvalue()


def _versions() -> dict[str, str]:
    packages = ("fruits-toolkit", "pyspark", "openvino", "keras", "obstore", "pillow", "numpy")
    return {"python": platform.python_version()} | {
        name: importlib.metadata.version(name) for name in packages
    }
