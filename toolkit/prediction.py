"""Classifies images: by a classifier that was trained here, or into the classes of ImageNet."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from toolkit.errors import RequestError
from toolkit.extraction import Stages, list_source, session_beside
from toolkit.folders import cache_folder
from toolkit.images.decode import UnreadableImage, decode_image
from toolkit.models import DEFAULT_MODEL, check_exact, model_spec, resolve_weights
from toolkit.parts import grouped
from toolkit.progress import Progress, Silent
from toolkit.session import spark_errors
from toolkit.storage import Location, Storage
from toolkit.trainings import find_training

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pyspark.sql import Column, DataFrame, Row, SparkSession

    from toolkit.models import Precision
    from toolkit.profiles import Profile
    from toolkit.sparkdl.image.reading import SourceFile

__all__ = ["ImagePrediction", "PredictRequest", "predict"]

# Files of this machine travel with the job.
_FILES_AT_ONCE = 65_536
_BYTES_AT_ONCE = 64 << 20
_FILES = pa.schema([("origin", pa.string()), ("image", pa.binary())])


@dataclass(frozen=True, kw_only=True)
class PredictRequest:
    """What is to be classified, and by what.

    Parameters
    ----------
    images
        Files, folders, ``s3://`` or ``s3a://`` URIs of images or of prefixes of them.
    trained
        Id of a training, or the start of it; None for the classes of ImageNet.
    model, weights, precision
        The network for these classes.
    top
        How many labels to tell of each image, 1 or more.
    """

    images: Sequence[str]
    trained: str | None = None
    model: str = DEFAULT_MODEL
    weights: str = "imagenet"
    precision: Precision = "auto"
    top: int = 3


@dataclass(frozen=True)
class ImagePrediction:
    """What an image was taken for.

    Parameters
    ----------
    origin
        The file or the object.
    labels
        The most probable labels with their probabilities, 0 to 1, the best first.
    reason
        Why there are none: the image can't be read.
    """

    origin: str
    labels: tuple[tuple[str, float], ...] = ()
    reason: str | None = None


def predict(
    request: PredictRequest,
    profile: Profile,
    *,
    log: Path,
    progress: Progress | None = None,
    spark: SparkSession | None = None,
) -> Iterator[ImagePrediction]:
    """Classify images on Spark, and yield what each was taken for as it becomes known.

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
        There are no such images, training or weights; nothing was started.
    JobError
        The job failed.
    """
    progress = progress or Silent()
    storage = Storage(profile.s3)
    training = find_training(storage, request.trained) if request.trained else None
    if training is None:
        check_exact(request.precision)
        resolve_weights(
            model_spec(request.model),
            request.weights,
            head="classes",
            cache=cache_folder(),
            bucket=storage,
        )
    stages = Stages(progress)
    with stages("images", "Images"):
        sources = _Sources.find(request.images, storage, progress)
    with session_beside(spark, profile, log=log, stages=stages) as session, spark_errors(log):
        work = session()
        if training:
            classify = _by_training(training.file("model").uri, top=request.top)
        else:
            classify = _by_imagenet(request)
        progress.say(f"Images to classify: {len(sources.files) + len(sources.objects)}")
        for images in sources.frames(work, storage):
            for row in classify(images).toLocalIterator(prefetchPartitions=True):
                yield _prediction(row)


@dataclass(frozen=True)
class _Sources:
    """What the arguments name: files of this machine, and objects of the store."""

    files: Sequence[str]
    objects: Sequence[SourceFile]

    @classmethod
    def find(cls, images: Sequence[str], storage: Storage, progress: Progress) -> _Sources:
        from toolkit.sparkdl.image.reading import SourceFile  # not before it is needed: Spark

        files: list[str] = []
        objects: list[SourceFile] = []
        for image in images:
            if "://" not in image and Path(image).expanduser().is_file():
                files.append(image)
            elif "://" in image and (there := storage.find(Location.parse(image))):
                objects.append(SourceFile(there.location.uri, there.size))
            elif "://" in image or Path(image).expanduser().is_dir():
                listing = list_source(image, storage, progress=progress)
                objects += (SourceFile(each.origin, each.size) for each in listing)
            else:
                raise RequestError(
                    f"There is no file or folder {image}.",
                    remedy="Name images, folders of them, or their s3:// URIs.",
                )
        return cls(files, objects)

    def frames(self, spark: SparkSession, storage: Storage) -> Iterator[DataFrame]:
        """Yield a row (origin, image) for each; the driver holds few of its files at a time."""
        from pyspark.sql.types import StructType

        from toolkit.sparkdl.image.reading import read_each

        for table in self._tables():
            yield spark.createDataFrame(table)
        if self.objects:
            yield read_each(
                spark,
                self.objects,
                lambda uri, content: (uri, content),
                storage=storage,
                schema=StructType().add("origin", "string").add("image", "binary"),
            )

    def _tables(self) -> Iterator[pa.Table]:
        """Read the files of this machine, some at a time."""
        for rows in grouped(
            map(_file_row, self.files),
            size=lambda row: len(row["image"]),
            bounds=lambda: (_FILES_AT_ONCE, _BYTES_AT_ONCE),
        ):
            yield pa.Table.from_pylist(rows, schema=_FILES)


def _file_row(file: str) -> dict[str, Any]:
    try:
        return {"origin": file, "image": Path(file).expanduser().read_bytes()}
    except OSError as exc:
        raise RequestError(f"{file} can't be read: {exc.strerror}.") from exc


def _by_imagenet(request: PredictRequest) -> Callable[[DataFrame], DataFrame]:
    """Return what makes images classes (label, probability), null where one can't be read."""
    from pyspark.sql import functions as F  # noqa: N812

    from toolkit.sparkdl import DeepImagePredictor

    predictor = DeepImagePredictor(
        inputCol="image",
        outputCol="top",
        modelName=model_spec(request.model).name,
        decodePredictions=True,
        topK=request.top,
        weights=request.weights,
        precision=request.precision,
    )
    classes = F.transform(
        "top",
        lambda each: F.struct(
            each["description"].alias("label"), each["probability"].alias("probability")
        ),
    )
    return lambda images: _told(predictor.transform(images), classes)


def _by_training(uri: str, *, top: int) -> Callable[[DataFrame], DataFrame]:
    """Return what makes images classes (label, probability), null where one can't be read."""
    from pyspark.ml import PipelineModel
    from pyspark.ml.functions import array_to_vector, vector_to_array
    from pyspark.sql import functions as F  # noqa: N812

    stages: list[Any] = PipelineModel.load(uri).stages
    featurizer, _, classifier, namer = stages
    # The model leaves out what can't be read. Here it is to be told: nothing stands for it.
    nothing = array_to_vector(F.array_repeat(F.lit(0.0), classifier.numFeatures))
    readable = F.col("features").isNotNull()
    labels = F.array(*map(F.lit, namer.getLabels()))
    classes = F.zip_with(
        labels,
        vector_to_array(F.col("probability")),
        lambda label, probability: F.struct(label.alias("label"), probability.alias("probability")),
    )
    best = F.slice(
        F.array_sort(
            classes, lambda a, b: F.signum(b["probability"] - a["probability"]).cast("int")
        ),
        1,
        top,
    )

    def classify(images: DataFrame) -> DataFrame:
        featurized = featurizer.transform(images).withColumn("readable", readable)
        filled = featurized.withColumn("features", F.coalesce("features", nothing))
        return _told(classifier.transform(filled), F.when(F.col("readable"), best))

    return classify


def _told(classified: DataFrame, classes: Column) -> DataFrame:
    """Keep the content of a file only where it has to be told what is wrong with it."""
    from pyspark.sql import functions as F  # noqa: N812

    told = classified.withColumn("classes", classes)
    return told.select(
        "origin", "classes", F.when(F.isnull("classes"), F.col("image")).alias("bad")
    )


def _prediction(row: Row) -> ImagePrediction:
    if row.classes is not None:
        labels = tuple((each.label, float(each.probability)) for each in row.classes)
        return ImagePrediction(row.origin, labels)
    try:
        decode_image(bytes(row.bad), size=(1, 1))
        reason = "it could not be read on the cluster"
    except UnreadableImage as exc:
        reason = exc.reason
    return ImagePrediction(row.origin, reason=reason)
