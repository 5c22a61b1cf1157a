"""The run: labelled images in, principal components of their features out."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

from toolkit import report
from toolkit.dataset import Dataset
from toolkit.errors import RequestError
from toolkit.extraction import (
    NetworkRequest,
    Stages,
    expect,
    extract,
    find_weights,
    list_source,
    make_featurizer,
    prepare_network,
    session_beside,
)
from toolkit.models import PreparedModel, executed_precision
from toolkit.parts import PLAN_VERSION
from toolkit.pca import PCAModel, fit_pca
from toolkit.progress import Progress, Silent
from toolkit.reduction import project, read_vectors
from toolkit.runs import (
    RUNS,
    Counts,
    Owner,
    RunFolder,
    RunRecord,
    all_runs,
    new_run_id,
    now,
    recording_failure,
    versions,
)
from toolkit.session import spark_errors
from toolkit.storage import Location, Storage
from toolkit.trainings import TRAININGS

if TYPE_CHECKING:
    from pathlib import Path

    from pyspark.sql import SparkSession

    from toolkit.images.listing import ImageListing
    from toolkit.profiles import Profile

__all__ = ["RunRequest", "check_output", "run"]

_PICTURED_IMAGES = 2_000
# Each costs a request; an older run than that is not missed.
_RUNS_CONSIDERED = 50


@dataclass(frozen=True, kw_only=True)
class RunRequest(NetworkRequest):
    """What a run is asked for, beside the network.

    Parameters
    ----------
    images
        A folder, or the ``s3://`` / ``s3a://`` URI of images in a bucket.
    components
        Share of the variance to explain (0 to 1, float) or number of components (int).
    limit
        At most so many images, evenly spaced over the listing; None for all.
    fresh
        Start anew even where an unfinished run of the same request could be continued.
    output
        URI to write ``result/`` to instead of the run's own folder.
    """

    images: str
    components: float | int = 0.95
    limit: int | None = None
    fresh: bool = False
    output: str | None = None


def run(  # noqa: PLR0913 - what, where, and what of it is there already
    request: RunRequest,
    profile: Profile,
    *,
    log: Path,
    progress: Progress | None = None,
    spark: SparkSession | None = None,
    network: PreparedModel | None = None,
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
    network
        The network that the request names, ready: nothing is looked for, downloaded or converted.
        What its setting costs (``fidelity`` of the record) is not measured then, as that takes the
        network in f32 at its own size. Default: it is prepared here.

    Raises
    ------
    RequestError
        The request can't be fulfilled as it stands; nothing was started.
    JobError
        The run failed; the record says so too.
    """
    stages = Stages(progress or Silent())
    storage = Storage(profile.s3)
    output = Location.parse(request.output) if request.output else None

    spec = request.spec
    with stages("images", "Images"):
        listing = list_source(
            request.images, storage, limit=request.limit, progress=stages.progress
        )
        if output is not None:
            check_output(output, listing, storage)
    found = network or find_weights(request, storage)  # what is wrong with it is told first
    with session_beside(spark, profile, log=log, stages=stages) as session:
        with stages("model", f"Model {spec.name}"):
            if isinstance(found, PreparedModel):
                model, fidelity = found, None
            else:
                model, fidelity = prepare_network(request, found, listing=listing, storage=storage)
            featurizer = make_featurizer(model, storage)
        folder, record, continues = _open_run(request, profile, listing=listing, model=model)
        if continues:
            stages.progress.say(f"Run {record.run_id} goes on from where it ended")
        if request.precision not in {"auto", record.precision}:
            stages.progress.say(
                f"This processor does not compute in {request.precision}: it is {record.precision}"
            )
        record = replace(record, fidelity=asdict(fidelity) if fidelity else None)
        features = folder.dataset("features")
        result = Dataset(storage, output or folder.file("result"))

        with recording_failure(folder.save, record), spark_errors(log):
            work = session()
            counts = extract(
                work,
                listing,
                featurizer,
                features=features,
                quarantine=folder.dataset("quarantine"),
                stages=stages,
                attempted=continues,
            )
            with stages("pca", "PCA"):
                vectors = read_vectors(work, features, dimensions=model.dimensions)
                pca = fit_pca(vectors, components=request.components)
                storage.write(folder.file("pca.npz"), _npz(pca))
                expect(pca.n_samples, counts.featurized, "vectors were read back")
            with stages("result", "Result"):
                written = project(work, pca, features, result=result, sample=_PICTURED_IMAGES)
                expect(written.rows, counts.featurized, "rows of the result were written")
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


def check_output(output: Location, listing: ImageListing, storage: Storage) -> None:
    """Refuse a place whose content a result would replace, unless that is an earlier result.

    Raises
    ------
    RequestError
        It is a whole bucket, touches the toolkit's own folders or the images, or holds objects
        that are no result.
    """
    own = [storage.location(name) for name in ("images", "models", RUNS, TRAININGS)]
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
        engine=model.engine,
        precision=executed_precision(model),
        input_size=model.input_size,
        fingerprint=fingerprint,
        owner=Owner.this_process(),
        started_at=now(),
        counts=Counts(listed=len(listing)),
        skipped=listing.skipped,
        labels=listing.labels,
        dimensions=model.dimensions,
        versions=versions(),
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


def _npz(pca: PCAModel) -> bytes:
    file = io.BytesIO()
    pca.save(file)
    return file.getvalue()
