"""``KerasImageFileEstimator``: trains a Keras model on image files, a candidate a Spark task."""

from __future__ import annotations

import inspect
import reprlib
import tempfile
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from py4j.protocol import Py4JError
from pyspark import cloudpickle, keyword_only
from pyspark.errors import PySparkException
from pyspark.ml import Estimator
from pyspark.ml.param import Param, Params, TypeConverters
from pyspark.sql.pandas.types import to_arrow_type
from pyspark.sql.types import ArrayType, BinaryType, DataType, IntegerType, StructField, StructType

from toolkit.errors import JobError
from toolkit.jobs import slots
from toolkit.sparkdl.bad_rows import CountsBadRows
from toolkit.sparkdl.cells import plain_cells
from toolkit.sparkdl.computing import Computation
from toolkit.sparkdl.keras_image import (
    CanLoadImage,
    KerasImageFileTransformer,
    call_loader,
    check_uris,
    results_of,
)
from toolkit.sparkdl.keras_models import (
    HasKerasModel,
    fit_to_shape,
    import_keras,
    load_keras_model,
    pickled,
    share_model,
)
from toolkit.sparkdl.params import HasColumns, HasOutputMode, given, input_type, is_vector
from toolkit.sparkdl.persistence import Attached, Attachment, FileAttachment, ObjectAttachment
from toolkit.sparkdl.spark_files import keep
from toolkit.sparkdl.tensorflow_runtime import executor_tensorflow

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

    from numpy.typing import NDArray
    from pyspark import Broadcast
    from pyspark.sql import Column, DataFrame, SparkSession

    from toolkit.sparkdl.keras_models import KerasModel
    from toolkit.sparkdl.spark_files import SharedFile

    ParamMap = dict[Param[Any], Any]

__all__ = ["KerasImageFileEstimator"]

_POLL_SECONDS = 0.25
_LONGEST_REASON = 2_000
_BATCH_SIZE = 32
# Any number: with one, a candidate's weights depend on nothing but its parameters.
_SEED = 0

_DEFAULT_OPTIMIZER = "adam"
_NO_OPTIMIZERS = frozenset({"lossscaleoptimizer", "multioptimizer", "optimizer", "optimizermap"})
_NO_LOSSES = frozenset({"deserialize", "get", "serialize"})


def _to_optimizer(value: Any) -> str | dict[str, Any]:
    """Check an optimizer's name or configuration; an optimizer becomes its configuration."""
    if value == _DEFAULT_OPTIMIZER:
        return _DEFAULT_OPTIMIZER  # without importing Keras: every estimator begins with it
    optimizers = import_keras().optimizers
    if isinstance(value, optimizers.Optimizer):
        value = optimizers.serialize(value)
    try:
        optimizers.get(value)
    except Exception as exc:
        names = {
            name.lower()
            for name, each in vars(optimizers).items()
            if isinstance(each, type) and issubclass(each, optimizers.Optimizer)
        }
        raise TypeError(
            f"Named optimizer not supported in Keras: {value!r}. "
            f"Supported: {', '.join(sorted(names - _NO_OPTIMIZERS))}"
        ) from exc
    return value  # type: ignore[no-any-return]


def _to_loss(value: Any) -> str | dict[str, Any]:
    """Check a loss' name or configuration; a loss becomes its configuration or its name."""
    losses = import_keras().losses
    if isinstance(value, losses.Loss):
        value = losses.serialize(value)
    name = getattr(value, "__name__", "")
    if name and getattr(losses, name, None) is value:
        value = name
    try:
        if not isinstance(value, (str, dict)):
            raise TypeError("executors have Keras' own losses alone")  # noqa: TRY301
        losses.get(value)
    except Exception as exc:
        names = {name for name in vars(losses) if name[:1].isalpha() and name.islower()}
        raise TypeError(
            f"Named loss not supported in Keras: {value!r}. "
            f"Supported: {', '.join(sorted(names - _NO_LOSSES))}"
        ) from exc
    return value


class _HasTraining(Params):
    """Parameters ``labelCol``, ``kerasOptimizer`` and ``kerasLoss``, with their setters."""

    labelCol: Param[str] = Param(
        Params._dummy(),
        "labelCol",
        "Column of the labels: one-hot vectors of MLlib.",
        typeConverter=TypeConverters.toString,
    )
    kerasOptimizer: Param[Any] = Param(
        Params._dummy(),
        "kerasOptimizer",
        "Name of an optimizer of Keras, or its configuration.",
        typeConverter=_to_optimizer,
    )
    kerasLoss: Param[Any] = Param(
        Params._dummy(),
        "kerasLoss",
        "Name of a loss of Keras, or its configuration.",
        typeConverter=_to_loss,
    )

    def __init__(self) -> None:
        super().__init__()
        self._setDefault(kerasOptimizer=_DEFAULT_OPTIMIZER)

    def setLabelCol(self, value: str) -> Any:
        """Set the name of the column of labels."""
        return self._set(labelCol=value)

    def getLabelCol(self) -> str:
        """Return the name of the column of labels."""
        return str(self.getOrDefault(self.labelCol))

    def setKerasOptimizer(self, value: Any) -> Any:
        """Set the optimizer."""
        return self._set(kerasOptimizer=value)

    def getKerasOptimizer(self) -> str | dict[str, Any]:
        """Return the optimizer's name or configuration."""
        return self.getOrDefault(self.kerasOptimizer)  # type: ignore[no-any-return]

    def setKerasLoss(self, value: Any) -> Any:
        """Set the loss."""
        return self._set(kerasLoss=value)

    seKerasLoss = setKerasLoss  # SparkDL had it under this name only

    def getKerasLoss(self) -> str | dict[str, Any]:
        """Return the loss' name or configuration."""
        return self.getOrDefault(self.kerasLoss)  # type: ignore[no-any-return]


class KerasImageFileEstimator(
    Estimator[KerasImageFileTransformer],
    HasColumns,
    HasOutputMode,
    HasKerasModel,
    _HasTraining,
    CanLoadImage,
    CountsBadRows,
    Attached,
):
    """Trains a Keras model on images, each loaded from its URI by a function of yours.

    ``fit(frame)`` gives a `KerasImageFileTransformer` with the trained model;
    ``fit(frame, [paramMap, …])`` one for each map of parameters, each trained by a Spark task of
    its own, so that they are trained at the same time. `CrossValidator` and `TrainValidationSplit`
    tune it, with an evaluator that reads vectors of scores.

    Images are loaded once, on executors, and gathered on the driver: they and the labels must fit
    into its memory, and into that of each Python worker that trains. So must the trained models.
    Each model begins with the weights of the file and ends as a file on the driver, which lives as
    long as its process: save what you want to keep. Before each training the random numbers of
    Keras, NumPy and Python begin with the same seed, and Keras has one thread: a candidate's
    weights depend on its parameters, not on where it is trained. Another seed can be set by a
    callback, ``kerasFitParams={"callbacks": […]}``.

    Parameters
    ----------
    inputCol
        Column of URIs (strings).
    outputCol
        Column that the trained transformers add.
    outputMode
        ``vector`` or ``image``, as for `KerasImageFileTransformer`.
    labelCol
        Column of labels: one-hot vectors of MLlib, dense or sparse. An empty name: no labels.
    modelFile
        What ``model.save`` has written (``.keras``, ``.h5`` or ``.hdf5``), on the driver: a model
        of one input and one output. Its layers must be Keras' own: executors have no other.
    imageLoader
        Called on executors with a URI. Returns an array of shape (1, height, width, channels) or
        (height, width, channels), which goes into the model as it is, in float32. An image for
        which it raises, or gives nothing that fits the model, is left out.
    kerasOptimizer
        A name (``adam``, the default), an optimizer of Keras, or what its
        ``keras.optimizers.serialize`` makes of one.
    kerasLoss
        A name (``categorical_crossentropy``), a loss of Keras, or what its
        ``keras.losses.serialize`` makes of one.
    kerasFitParams
        Arguments of ``keras.Model.fit``, but for ``x`` and ``y``: ``{"epochs": 5}``. ``verbose`` is
        0 unless given; what Keras prints goes to the executor's log.

    Raises
    ------
    TypeError
        A parameter has a value that there is not; of optimizers and losses the message names those
        that there are.
    ValueError
        By ``fit``: a parameter is not defined, a map has one that can't be tuned (only
        ``kerasOptimizer``, ``kerasLoss``, ``kerasFitParams``, ``outputCol`` and ``outputMode``
        can), the model file can't be used, something can't be pickled, no image could be loaded,
        or images or labels differ in shape.
    IllegalArgumentException
        By ``fit``: a column is missing or of the wrong type.
    JobError
        By ``fit``: a candidate could not be trained; the message names its map and says what Keras
        said.
    """

    attachments: ClassVar[Mapping[str, Attachment]] = {
        "modelFile": FileAttachment(),
        "imageLoader": ObjectAttachment(),
        "kerasFitParams": ObjectAttachment(),
    }

    @keyword_only
    def __init__(
        self,
        *,
        inputCol: str | None = None,
        outputCol: str | None = None,
        outputMode: Literal["vector", "image"] = "vector",
        labelCol: str | None = None,
        modelFile: str | None = None,
        imageLoader: Callable[[str], Any] | None = None,
        kerasOptimizer: Any = None,
        kerasLoss: Any = None,
        kerasFitParams: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self._set(**given(self))

    @keyword_only
    def setParams(
        self,
        *,
        inputCol: str | None = None,
        outputCol: str | None = None,
        outputMode: Literal["vector", "image"] = "vector",
        labelCol: str | None = None,
        modelFile: str | None = None,
        imageLoader: Callable[[str], Any] | None = None,
        kerasOptimizer: Any = None,
        kerasLoss: Any = None,
        kerasFitParams: dict[str, Any] | None = None,
    ) -> KerasImageFileEstimator:
        """Set those parameters that are given."""
        self._set(**given(self))
        return self

    def fitMultiple(
        self, dataset: DataFrame, paramMaps: Sequence[ParamMap]
    ) -> Iterator[tuple[int, KerasImageFileTransformer]]:
        """Train a candidate for each map of parameters, in parallel.

        Everything is checked, and the images are loaded, before this returns. The candidates are
        trained when the first one is asked for; if the reader ends early, or one fails, those that
        still train are cancelled.

        Parameters
        ----------
        dataset
            URIs and labels.
        paramMaps
            By parameter its value; others are the estimator's.

        Returns
        -------
        iterator of (index, KerasImageFileTransformer)
            Each as soon as it is trained, in whatever order; safe to call from several threads.

        Raises
        ------
        TypeError, ValueError, IllegalArgumentException, JobError
            As the class says.
        """
        for paramMap in paramMaps:
            self._validateParams(paramMap)
        stages = [self.copy(paramMap) for paramMap in paramMaps]
        check_uris(dataset, self.getInputCol())
        if self.getLabelCol():
            _check_labels(dataset, self.getLabelCol())
        spark = dataset.sparkSession
        model = share_model(spark, self.getModelFile())
        candidates = [
            _candidate(index, stage, paramMap, model)
            for index, (stage, paramMap) in enumerate(zip(stages, paramMaps, strict=True))
        ]
        if not candidates:
            return iter(())
        images, labels = self._load(dataset, model)
        trained = _train(spark, candidates, model=model.file, images=images, labels=labels)
        return _Models(
            (candidate.index, _transformer(stages[candidate.index], content))
            for candidate, content in trained
        )

    def _fit(self, dataset: DataFrame) -> KerasImageFileTransformer:
        return dict(self.fitMultiple(dataset, [{}]))[0]

    def _validateParams(self, paramMap: ParamMap) -> bool:
        """Check that all parameters have values, and that none is tuned that can't be.

        Raises
        ------
        ValueError
            There are some; the message names them.
        """
        tunable = [
            self.kerasOptimizer,
            self.kerasLoss,
            self.kerasFitParams,
            self.outputCol,
            self.outputMode,
        ]
        missing = [
            param
            for param in self.params
            if not self.isDefined(param) or self.getOrDefault(param) is None
        ]
        problems = {
            "defined": [param.name for param in missing if param not in tunable],
            "defined or tuned": [
                param.name for param in missing if param in tunable and param not in paramMap
            ],
            "not tuned": [param.name for param in paramMap if param not in tunable],
        }
        if any(problems.values()):
            named = "; ".join(f"{what}: {names}" for what, names in problems.items() if names)
            raise ValueError(f"Following Params must be {named}")
        return True

    def _load(
        self, dataset: DataFrame, model: KerasModel
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Return images and labels: shapes (n, height, width, channels) and (n, classes)."""
        loader = pickled(self.getImageLoader(), "The imageLoader")
        load = Computation(
            _TrainingImages(loader, model.input_shape),
            _Packed(),
            self._bad.counter(dataset.sparkSession),
        ).function()
        columns: list[Column] = [load(dataset[self.getInputCol()])]
        if self.getLabelCol():
            columns.append(dataset[self.getLabelCol()])
        rows = [row for row in dataset.select(*columns).collect() if row[0] is not None]
        if not rows:
            raise ValueError(
                f"There is nothing to train on: of the images in {self.getInputCol()} none could "
                "be loaded. The executors' log says why."
            )
        images = [np.frombuffer(row[0].data, np.float32).reshape(row[0].shape) for row in rows]
        if not self.getLabelCol():
            return _stack(images, "Images"), None
        if without := sum(row[1] is None for row in rows):
            raise ValueError(f"{without} of {len(rows)} images have no {self.getLabelCol()}.")
        return _stack(images, "Images"), _stack([row[1].toArray() for row in rows], "Labels")


@dataclass(frozen=True)
class _Candidate:
    """What a task needs to know of a candidate; `title` names it in errors."""

    index: int
    title: str
    optimizer: str | dict[str, Any]
    loss: str | dict[str, Any]
    fit_params: bytes


@dataclass(frozen=True)
class _Failure:
    """Why a candidate could not be trained."""

    reason: str


@dataclass(frozen=True)
class _Training:
    """The task: trains a candidate, and returns the content of its model file."""

    model: SharedFile
    images: Broadcast[NDArray[np.float32]]
    labels: Broadcast[NDArray[np.float32]] | None

    def __call__(self, candidate: _Candidate) -> bytes | _Failure:
        executor_tensorflow()
        try:
            return self._train(candidate)
        except Exception as exc:  # noqa: BLE001 - Spark would repeat it three times in vain
            return _Failure(f"{type(exc).__name__}: {exc}"[:_LONGEST_REASON])

    def _train(self, candidate: _Candidate) -> bytes:
        keras = import_keras()
        keras.utils.clear_session()
        keras.utils.set_random_seed(_SEED)
        model = load_keras_model(self.model.path())
        model.compile(
            optimizer=keras.optimizers.get(candidate.optimizer),
            loss=keras.losses.get(candidate.loss),
        )
        arguments = {"verbose": 0} | cloudpickle.loads(candidate.fit_params)
        labels = None if self.labels is None else self.labels.value
        model.fit(self.images.value, labels, **arguments)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "model.keras"
            model.save(file)
            return file.read_bytes()


@dataclass(frozen=True)
class _TrainingImages:
    """Loads images by a pickled function; there is nothing to compute."""

    loader: bytes
    shape: tuple[int | None, ...]

    def load(self) -> _LoadedTrainingImages:
        return _LoadedTrainingImages(cloudpickle.loads(self.loader), self.shape)


class _LoadedTrainingImages:
    batch_size = _BATCH_SIZE

    def __init__(self, loader: Callable[[str], Any], shape: tuple[int | None, ...]) -> None:
        self._loader = loader
        self._shape = shape

    def cells(self, column: pa.Array) -> Iterator[str | None]:
        return plain_cells(column)

    def read(self, cell: str) -> NDArray[Any]:
        return fit_to_shape(call_loader(self._loader, cell), self._shape, np.float32)

    def compute(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        return batch.copy()  # the results outlive the batch


@dataclass(frozen=True)
class _Packed:
    """Arrays of floats as their shape and their bytes, without a Python object a number."""

    @property
    def data_type(self) -> DataType:
        return StructType(
            [StructField("shape", ArrayType(IntegerType())), StructField("data", BinaryType())]
        )

    def column(self, results: Sequence[NDArray[np.float32] | None]) -> pa.Array:
        cells = [
            None if each is None else {"shape": list(each.shape), "data": each.tobytes()}
            for each in results
        ]
        return pa.array(cells, to_arrow_type(self.data_type))


class _Models(Iterator[tuple[int, KerasImageFileTransformer]]):
    """Gives models to several threads.

    After a failure all of them get it: who were told instead that there are no more models, would
    take the failed one for a model without a score, as `CrossValidator` does.
    """

    def __init__(self, models: Iterator[tuple[int, KerasImageFileTransformer]]) -> None:
        self._models = models
        self._lock = threading.Lock()
        self._failure: BaseException | None = None

    def __next__(self) -> tuple[int, KerasImageFileTransformer]:
        with self._lock:
            if self._failure is not None:
                raise self._failure
            try:
                return next(self._models)
            except StopIteration:
                raise
            except BaseException as exc:
                self._failure = exc
                raise


def _check_labels(dataset: DataFrame, name: str) -> None:
    input_type(dataset, name, expected="one-hot vectors of MLlib", fits=is_vector)


def _candidate(
    index: int, stage: KerasImageFileEstimator, paramMap: ParamMap, model: KerasModel
) -> _Candidate:
    """Check a candidate as far as that can be done without training it."""
    values = ", ".join(f"{param.name}={reprlib.repr(each)}" for param, each in paramMap.items())
    title = f"Candidate {index} ({values or 'the parameters of the estimator'})"
    results_of(model, stage.getOutputMode(), stage.getModelFile())
    known = inspect.signature(import_keras().Model.fit).parameters
    if unknown := sorted(stage.getKerasFitParams().keys() - known.keys()):
        raise ValueError(f"{title}: Keras' fit has no argument {', '.join(unknown)}")
    return _Candidate(
        index,
        title,
        stage.getKerasOptimizer(),
        stage.getKerasLoss(),
        pickled(stage.getKerasFitParams(), f"{title}: kerasFitParams"),
    )


def _train(
    spark: SparkSession,
    candidates: Sequence[_Candidate],
    *,
    model: SharedFile,
    images: NDArray[np.float32],
    labels: NDArray[np.float32] | None,
) -> Generator[tuple[_Candidate, bytes], None, None]:
    """Yield candidates with the content of their model files, each as soon as it is trained.

    Each is a Spark job of its own, as many at a time as there are tasks at a time: one job of all
    would keep the first model back until the last one is trained.
    """
    context = spark.sparkContext
    group = f"toolkit-fit-{uuid.uuid4().hex}"
    with (
        _broadcast(spark, images) as images_there,
        _broadcast(spark, labels) as labels_there,
        ThreadPoolExecutor(min(len(candidates), slots(spark))) as pool,
    ):
        assert images_there is not None  # noqa: S101
        training = _Training(model, images_there, labels_there)

        def run(candidate: _Candidate) -> bytes | _Failure:
            # A group belongs to a thread: this one is ours, for this job.
            context.setJobGroup(group, candidate.title, interruptOnCancel=True)
            return context.parallelize([candidate], 1).map(training).collect()[0]

        running = {pool.submit(run, candidate): candidate for candidate in candidates}
        try:
            for future in as_completed(running):
                candidate = running[future]
                try:
                    result = future.result()
                except (PySparkException, Py4JError) as exc:
                    reason = str(exc).strip().partition("\n")[0]
                    raise JobError(f"{candidate.title} could not be trained: {reason}") from exc
                if isinstance(result, _Failure):
                    raise JobError(f"{candidate.title} could not be trained: {result.reason}")
                yield candidate, result
        finally:
            while left := [future for future in running if not future.done()]:
                for future in left:
                    future.cancel()
                context.cancelJobGroup(group)
                wait(left, timeout=_POLL_SECONDS)


@contextmanager
def _broadcast(
    spark: SparkSession, array: NDArray[np.float32] | None
) -> Iterator[Broadcast[NDArray[np.float32]] | None]:
    """Give an array to all executors, until the end of the block."""
    if array is None:
        yield None
        return
    broadcast = spark.sparkContext.broadcast(array)
    try:
        yield broadcast
    finally:
        broadcast.destroy()


def _transformer(stage: KerasImageFileEstimator, content: bytes) -> KerasImageFileTransformer:
    """Return what applies a trained model, with the parameters of its candidate."""
    transformer = stage._copyValues(KerasImageFileTransformer())
    return transformer._set(modelFile=str(keep(content, suffix=".keras")))


def _stack(arrays: Sequence[NDArray[Any]], what: str) -> NDArray[np.float32]:
    shapes = {each.shape for each in arrays}
    if len(shapes) > 1:
        some = ", ".join(map(str, sorted(shapes)[:3]))
        raise ValueError(f"{what} to train on must have one shape, but there are {some}.")
    return np.stack(arrays).astype(np.float32, copy=False)
