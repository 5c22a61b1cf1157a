"""Transfer learning: a classifier on the features of a network, searched for, judged and kept."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import product
from math import isfinite
from typing import TYPE_CHECKING, Any, cast

from toolkit.errors import JobError, RequestError
from toolkit.extraction import (
    NetworkRequest,
    Stages,
    extract,
    find_weights,
    list_source,
    make_featurizer,
    prepare_network,
    session_beside,
)
from toolkit.jobs import slots
from toolkit.models import DEFAULT_MODEL, check_exact, executed_precision
from toolkit.progress import Progress, Silent
from toolkit.runs import new_run_id, now, recording_failure, versions
from toolkit.session import spark_errors
from toolkit.storage import Storage
from toolkit.trainings import Candidate, LabelScore, TrainingFolder, TrainingRecord

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from pyspark.ml import PipelineModel
    from pyspark.ml.classification import LogisticRegressionModel
    from pyspark.sql import Column, DataFrame, SparkSession

    from toolkit.images.listing import ImageListing
    from toolkit.models import Precision, ResolvedWeights
    from toolkit.profiles import Profile

__all__ = [
    "DEFAULT_GRID",
    "TrainRequest",
    "parse_grid",
    "train",
]

DEFAULT_GRID: Mapping[str, tuple[float, ...]] = {"regParam": (0.001, 0.01, 0.1)}

# Parameters of Spark ML's LogisticRegression that a grid may have: smallest and largest value.
_GRID_BOUNDS = {
    "regParam": (0.0, float("inf")),
    "elasticNetParam": (0.0, 1.0),
    "maxIter": (1.0, 10_000.0),
}
_WHOLE = frozenset({"maxIter"})
# Of each label, one image in so many is held out where no folder of images is: at least one of two.
_HELD_OUT_SHARE = 5
# 40 MB of the vectors of EfficientNetLite0.
_PARTITION_ROWS = 4_096
# Between two jobs of a fit the driver is at work.
_FITS_PER_SLOT = 2
# Relative change of the loss at which a fit ends. Spark's own 1e-6 took twice the iterations on the
# sample images and told none of them apart that this does not.
_TOLERANCE = 1e-4
_SEED = 0


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """What a training is asked for.

    Parameters
    ----------
    images
        A folder, or the ``s3://`` / ``s3a://`` URI of images in a bucket; the name of an image's
        folder is its label.
    model, weights, precision
        The network that makes the features, as for a run.
    grid
        Values to try of parameters of Spark ML's ``LogisticRegression``: ``regParam``,
        ``elasticNetParam``, ``maxIter``; all combinations are tried.
    folds
        Of the cross-validation, 2 or more.
    held_out
        Name of the folder of images below `images` that the classifier is judged on, and not
        trained on. Where there is none, a fifth of each label is held out.
    limit
        At most so many images, evenly spaced over the listing; None for all.
    """

    images: str
    model: str = DEFAULT_MODEL
    weights: str = "imagenet"
    precision: Precision = "auto"
    grid: Mapping[str, Sequence[float]] = field(default_factory=lambda: DEFAULT_GRID)
    folds: int = 3
    held_out: str = "Test"
    limit: int | None = None

    @property
    def network(self) -> NetworkRequest:
        """The network of this request."""
        return NetworkRequest(model=self.model, weights=self.weights, precision=self.precision)

    @property
    def candidates(self) -> list[dict[str, float]]:
        """All combinations of the grid."""
        return [
            dict(zip(self.grid, values, strict=True)) for values in product(*self.grid.values())
        ]


def parse_grid(texts: Iterable[str]) -> dict[str, tuple[float, ...]]:
    """Read a grid, each text as ``regParam=0.01,0.1``; none is the default one.

    Raises
    ------
    RequestError
        A parameter or a value that there is not.
    """
    grid: dict[str, tuple[float, ...]] = {}
    for text in texts:
        name, _, values = text.partition("=")
        if name not in _GRID_BOUNDS:
            raise RequestError(
                f"{text!r} is no part of a grid.",
                remedy="Write, for example, --grid regParam=0.01,0.1. Parameters: "
                f"{', '.join(_GRID_BOUNDS)}.",
            )
        grid[name] = tuple(_grid_value(name, value) for value in values.split(","))
    return grid or dict(DEFAULT_GRID)


def _grid_value(name: str, text: str) -> float:
    least, most = _GRID_BOUNDS[name]
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not (least <= value <= most and isfinite(value)) or (name in _WHOLE and value != int(value)):
        kind = "a whole number" if name in _WHOLE else "a number"
        raise RequestError(f"{name} can't be {text!r}: it is {kind} of {least:g} to {most:g}.")
    return value


def train(
    request: TrainRequest,
    profile: Profile,
    *,
    log: Path,
    progress: Progress | None = None,
    spark: SparkSession | None = None,
) -> TrainingRecord:
    """Train a classifier on images, judge it on others, and keep it.

    The best combination of the grid, by cross-validation on the training images, is fitted to all
    of them. ``model/`` is a Spark ML ``PipelineModel`` that takes a column ``image``, of image
    structs or of the contents of files, and adds ``features``, ``probability`` and ``predicted``.
    It leaves out the rows of images that can't be read.

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
        The training failed; the record says so too.
    """
    stages = Stages(progress or Silent())
    storage = Storage(profile.s3)
    folder = TrainingFolder(storage, new_run_id())
    network = request.network
    check_exact(network.precision)
    _ = network.spec  # what is wrong with the request is told before anything is uploaded

    with stages("images", "Images"):
        listing = list_source(
            request.images, storage, limit=request.limit, progress=stages.progress
        )
        split = _split(listing, request.held_out, folds=request.folds)
    weights = find_weights(network, storage)
    record = _begun(request, profile, listing=listing, split=split, folder=folder)
    with (
        recording_failure(folder.save, record),
        session_beside(spark, profile, log=log, stages=stages) as session,
    ):
        with stages("model", f"Model {network.spec.name}"):
            model, _ = prepare_network(network, weights, listing=listing, storage=storage)
            featurizer = make_featurizer(model, storage)
        with spark_errors(log):
            work = session()
            counts = extract(
                work,
                listing,
                featurizer,
                features=folder.dataset("features"),
                quarantine=folder.dataset("quarantine"),
                stages=stages,
            )
            with _split_features(
                work, folder, split, rows=counts.featurized, folds=request.folds
            ) as (training, held_out):
                with stages("search", f"Search among {len(request.candidates)} candidates"):
                    labels, classifier, candidates = _search(training, request)
                with stages("judge", "Judge on held-out images"):
                    labels_seen, confusion = _judge(classifier, held_out, labels=labels)
                judged = sum(map(sum, confusion))
            with stages("save", "Save the model"):
                uri = folder.file("model").uri
                pipeline = _pipeline(
                    classifier, request, labels=labels, weights=_kept(weights, request, folder)
                )
                pipeline.write().overwrite().save(uri)
    done = replace(
        record,
        status="done",
        precision=executed_precision(model),
        finished_at=now(),
        weights_sha256=model.weights_sha256,
        random_weights=model.random_weights,
        counts={
            "training": counts.featurized - judged,
            "held_out": judged,
            "quarantined": counts.quarantined,
        },
        candidates=candidates,
        labels=labels_seen,
        accuracy=sum(confusion[i][i] for i in range(len(confusion))) / judged,
        scores=_scores(labels_seen, confusion),
        confusion=confusion,
        seconds=stages.seconds,
    )
    folder.save(done)
    return done


def _begun(
    request: TrainRequest,
    profile: Profile,
    *,
    listing: ImageListing,
    split: _Split,
    folder: TrainingFolder,
) -> TrainingRecord:
    """Save the record of a training that begins."""
    record = TrainingRecord(
        training_id=folder.training_id,
        status="running",
        profile=profile.name,
        images=listing.location.uri,
        model=request.network.spec.name,
        weights=request.weights,
        precision=request.precision,
        held_out=split.description,
        folds=request.folds,
        started_at=now(),
        versions=versions(),
        uris={
            "training": folder.file("train.json").uri,
            **{name: folder.file(name).uri for name in ("model", "features", "quarantine")},
        },
    )
    folder.save(record)
    return record


@dataclass(frozen=True)
class _Split:
    """Which images are held out: those whose URIs begin so, or None for a share of each label."""

    prefix: str | None
    description: str


def _split(listing: ImageListing, held_out: str, *, folds: int) -> _Split:
    """Decide what is held out, before anything is computed.

    Raises
    ------
    RequestError
        There would be nothing to train on, or nothing to tell apart.
    """
    prefix = (listing.location / held_out).uri + "/"
    judged = 0
    labels: Counter[str] = Counter()
    for image in listing:
        if image.origin.startswith(prefix):
            judged += 1
        else:
            labels[image.label] += 1
    if len(labels) < 2:  # noqa: PLR2004 - one is no choice
        raise RequestError(
            f"The training images have {len(labels)} labels, and there must be 2 or more.",
            remedy=f"Name a folder with one folder a label, and {held_out}/ beside them or none.",
        )
    most = max(labels.values())
    if not judged:
        most -= max(1, most // _HELD_OUT_SHARE)
    if most < folds:
        raise RequestError(
            f"No label has {folds} images to train on, one for each fold: the most are {most}.",
            remedy="Choose fewer --folds, or bring more images.",
        )
    if judged:
        return _Split(prefix, f"{judged} images in {prefix}")
    return _Split(None, f"one image in {_HELD_OUT_SHARE} of each label")


@contextmanager
def _split_features(
    spark: SparkSession, folder: TrainingFolder, split: _Split, *, rows: int, folds: int
) -> Iterator[tuple[DataFrame, DataFrame]]:
    """Give the features of the images to train on and of those held out, in memory.

    Both have columns ``label``, ``features`` (vectors) and ``fold`` (from 0).

    Raises
    ------
    JobError
        No image of one of the two could be read.
    """
    from pyspark.ml.functions import array_to_vector
    from pyspark.sql import Window
    from pyspark.sql import functions as F  # noqa: N812

    def place(*columns: str) -> Column:
        """Return the place of a row, from 0, in an order that has nothing to do with names."""
        return F.row_number().over(Window.partitionBy(*columns).orderBy(F.xxhash64("origin"))) - 1

    table = spark.read.schema("origin string, label string, features array<float>").parquet(
        folder.file("features").uri
    )
    images = F.count("*").over(Window.partitionBy("label"))
    share = F.greatest(F.lit(1), F.floor(images / _HELD_OUT_SHARE))
    held_out = (
        F.col("origin").startswith(split.prefix)
        if split.prefix
        else (images > 1) & (place("label") < share)
    )
    vectors = (
        table.withColumn("held_out", held_out)
        # Every fold has its share of every label.
        .withColumn("fold", (place("label", "held_out") % folds).cast("int"))
        .select("label", array_to_vector(F.col("features")).alias("features"), "held_out", "fold")
        # Each iteration is a job: few tasks, as other candidates' jobs fill the cores.
        .coalesce(-(-rows // _PARTITION_ROWS))
        .cache()
    )
    try:
        parts = vectors.where("NOT held_out"), vectors.where("held_out")
        for part, name in zip(parts, ("training", "held-out"), strict=True):
            if part.isEmpty():
                raise JobError(
                    f"There are no {name} images, or none of them could be read.",
                    remedy=f"See {folder.file('quarantine').uri} for each image's reason.",
                )
        if parts[0].select("fold").distinct().count() < folds:
            raise JobError(
                f"No label has {folds} images that could be read, one for each fold.",
                remedy=f"See {folder.file('quarantine').uri}, or choose fewer --folds.",
            )
        yield parts
    finally:
        vectors.unpersist()


def _search(
    training: DataFrame, request: TrainRequest
) -> tuple[list[str], LogisticRegressionModel, list[Candidate]]:
    """Fit the best of the candidates; candidates and folds are fitted side by side.

    Returns
    -------
    labels
        In the order of the classifier's probabilities.
    classifier
        Fitted to all training images.
    candidates
        The best first.
    """
    from pyspark.ml.classification import LogisticRegression
    from pyspark.ml.evaluation import MulticlassClassificationEvaluator
    from pyspark.ml.feature import StringIndexer
    from pyspark.ml.tuning import CrossValidator

    indexer = StringIndexer(inputCol="label", outputCol="index", stringOrderType="alphabetAsc")
    indexed = indexer.fit(training)
    regression = LogisticRegression(labelCol="index", family="multinomial", tol=_TOLERANCE)
    maps = [
        {regression.getParam(name): _typed(name, value) for name, value in candidate.items()}
        for candidate in request.candidates
    ]
    search = CrossValidator(
        estimator=regression,
        estimatorParamMaps=maps,
        evaluator=MulticlassClassificationEvaluator(labelCol="index", metricName="accuracy"),
        numFolds=request.folds,
        foldCol="fold",
        seed=_SEED,
        parallelism=_FITS_PER_SLOT * slots(training.sparkSession),
    )
    found = search.fit(indexed.transform(training).select("index", "features", "fold"))
    candidates = [
        Candidate(params, float(accuracy))
        for params, accuracy in zip(request.candidates, found.avgMetrics, strict=True)
    ]
    candidates.sort(key=lambda candidate: -candidate.accuracy)
    return list(indexed.labels), cast("LogisticRegressionModel", found.bestModel), candidates


def _typed(name: str, value: float) -> float | int:
    return int(value) if name in _WHOLE else value


def _judge(
    classifier: LogisticRegressionModel, held_out: DataFrame, *, labels: Sequence[str]
) -> tuple[list[str], list[list[int]]]:
    """Count what held-out images are taken for.

    Returns
    -------
    labels
        Those of the classifier, and those that only held-out images have.
    confusion
        Rows: what the images are; columns: what they are taken for.
    """
    counted = classifier.transform(held_out).groupBy("label", "prediction").count().collect()
    strangers = sorted({row.label for row in counted} - set(labels))
    seen = [*labels, *strangers]
    confusion = [[0] * len(seen) for _ in seen]
    for row in counted:
        confusion[seen.index(row.label)][int(row.prediction)] += row["count"]
    return seen, confusion


def _scores(labels: Sequence[str], confusion: Sequence[Sequence[int]]) -> list[LabelScore]:
    scores = []
    for index, label in enumerate(labels):
        right = confusion[index][index]
        are, taken = sum(confusion[index]), sum(row[index] for row in confusion)
        scores.append(LabelScore(label, are, _share(right, taken), _share(right, are)))
    return scores


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _kept(weights: ResolvedWeights, request: TrainRequest, folder: TrainingFolder) -> str:
    """Return what the model calls its weights; a file of this machine is put beside it."""
    named = request.weights == "imagenet" or "://" in request.weights or weights.is_random
    if named or weights.path is None:
        return request.weights
    kept = folder.file("weights") / weights.path.name
    folder.storage.upload(weights.path, kept, in_parts=True)
    return kept.uri


def _pipeline(
    classifier: LogisticRegressionModel,
    request: TrainRequest,
    *,
    labels: Sequence[str],
    weights: str,
) -> PipelineModel:
    from pyspark.ml import PipelineModel
    from pyspark.ml.feature import IndexToString, SQLTransformer

    from toolkit.sparkdl import DeepImageFeaturizer

    stages: list[Any] = [
        DeepImageFeaturizer(
            inputCol="image",
            outputCol="features",
            modelName=request.network.spec.name,
            scaleHint="BILINEAR",  # as the features were made that it was trained on
            pooling="avg",
            weights=weights,
            precision=request.precision,
        ),
        # Spark ML's classifiers fail on null.
        SQLTransformer(statement="SELECT * FROM __THIS__ WHERE features IS NOT NULL"),
        classifier,
        IndexToString(inputCol="prediction", outputCol="predicted", labels=list(labels)),
    ]
    return PipelineModel(stages)
