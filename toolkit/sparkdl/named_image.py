"""Transformers with a network of the zoo: ``DeepImageFeaturizer`` and ``DeepImagePredictor``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, cast

from pyspark import keyword_only
from pyspark.ml import Transformer
from pyspark.ml.param import Param, Params, TypeConverters
from pyspark.ml.util import DefaultParamsReadable, DefaultParamsWritable

from toolkit.models import CLASSES, EXACT_PRECISIONS, MODELS
from toolkit.sparkdl.bad_rows import CountsBadRows
from toolkit.sparkdl.computing import Computation
from toolkit.sparkdl.networks import NamedNetwork, Source, share_network
from toolkit.sparkdl.params import (
    HasColumns,
    at_least,
    check_output,
    given,
    input_type,
    is_file,
    is_image,
    one_of,
    optional,
)
from toolkit.sparkdl.results import Classes, Results, Vectors

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from toolkit.images.decode import Resampling
    from toolkit.models import Head, Precision

__all__ = ["SUPPORTED_MODELS", "DeepImageFeaturizer", "DeepImagePredictor"]

SUPPORTED_MODELS = list(MODELS)
"""The networks: SparkDL's five, EfficientNetLite0 and MobileNetV2."""

# SparkDL's hints are those of java.awt.Image. Its averaging of areas is Pillow's box filter; its
# fast, default and replicating ones take the nearest pixel. The last one is this package's own.
_SCALE_HINTS: dict[str, Resampling] = {
    "SCALE_AREA_AVERAGING": "area",
    "SCALE_SMOOTH": "area",
    "SCALE_DEFAULT": "nearest",
    "SCALE_FAST": "nearest",
    "SCALE_REPLICATE": "nearest",
    "BILINEAR": "bilinear",
}

# What SparkDL 1.6 gave: 2,048 numbers of ResNet50's pool, the flattened feature maps of the others.
_FLAT_IN_SPARKDL = frozenset({"InceptionV3", "Xception", "VGG16", "VGG19"})


class _NamedImageTransformer(
    Transformer, HasColumns, CountsBadRows, DefaultParamsReadable[Any], DefaultParamsWritable
):
    """Applies a network of the zoo to a column of images."""

    modelName: Param[str] = Param(
        Params._dummy(),
        "modelName",
        "Name of the network.",
        typeConverter=one_of(SUPPORTED_MODELS),
    )
    weights: Param[str] = Param(
        Params._dummy(),
        "weights",
        "imagenet, a file, an s3:// or s3a:// URI, or random:SEED for tests.",
        typeConverter=TypeConverters.toString,
    )
    batchSize: Param[int] = Param(
        Params._dummy(),
        "batchSize",
        "Number of images that the network computes at once; not set: the fastest.",
        typeConverter=at_least(1),
    )
    precision: Param[str] = Param(
        Params._dummy(),
        "precision",
        "auto: the fastest that keeps the features; f32; bf16.",
        typeConverter=one_of(EXACT_PRECISIONS),
    )

    def __init__(self) -> None:
        super().__init__()
        self._setDefault(weights="imagenet", precision="auto")

    def setModelName(self, value: str) -> Any:
        """Set the name of the network, one of `SUPPORTED_MODELS`."""
        return self._set(modelName=value)

    def getModelName(self) -> str:
        """Return the name of the network."""
        return str(self.getOrDefault(self.modelName))

    def setWeights(self, value: str) -> Any:
        """Set where the weights come from."""
        return self._set(weights=value)

    def getWeights(self) -> str:
        """Return where the weights come from."""
        return str(self.getOrDefault(self.weights))

    def setBatchSize(self, value: int) -> Any:
        """Set how many images the network computes at once."""
        return self._set(batchSize=value)

    def getBatchSize(self) -> int | None:
        """Return how many images the network computes at once; None for the fastest."""
        return optional(self, self.batchSize)

    def setPrecision(self, value: str) -> Any:
        """Set what the network computes in: ``auto``, ``f32`` or ``bf16``."""
        return self._set(precision=value)

    def getPrecision(self) -> str:
        """Return what the network computes in."""
        return str(self.getOrDefault(self.precision))

    def _transform(self, dataset: DataFrame) -> DataFrame:
        compute = self._computation(dataset).function()
        return dataset.withColumn(self.getOutputCol(), compute(dataset[self.getInputCol()]))

    def _computation(self, dataset: DataFrame) -> Computation:
        """Check the columns and the parameters, and return what the executors compute."""
        raise NotImplementedError

    def _computation_of(
        self, dataset: DataFrame, *, head: Head, resampling: Resampling, results: Results
    ) -> Computation:
        """Check the columns, and return the computation of what the network gives."""
        kind = input_type(
            dataset,
            self.getInputCol(),
            expected="images (structs of ImageSchema) or the contents of image files (binary)",
            fits=lambda kind: is_image(kind) or is_file(kind),
        )
        check_output(dataset, self.getOutputCol())
        spark = dataset.sparkSession
        network = share_network(
            spark,
            self.getModelName(),
            weights=self.getWeights(),
            precision=cast("Precision", self.getPrecision()),
            head=head,
        )
        source: Source = "file" if is_file(kind) else "struct"
        return Computation(
            NamedNetwork(network, source, resampling, self.getBatchSize()),
            results,
            self._bad.counter(spark),
        )


class DeepImageFeaturizer(_NamedImageTransformer):
    """Turns images into feature vectors with a pre-trained network, cut before its classifier.

    Takes a column of image structs (`ImageSchema`), or of the contents of image files (binary), and
    adds a column of MLlib vectors. What can't be read becomes null.

    Parameters
    ----------
    inputCol
        Column of the images.
    outputCol
        Column to add.
    modelName
        ``InceptionV3``, ``Xception``, ``ResNet50``, ``VGG16``, ``VGG19``, ``EfficientNetLite0`` or
        ``MobileNetV2``.
    scaleHint
        How images get the network's size: ``SCALE_AREA_AVERAGING`` (as SparkDL), ``SCALE_SMOOTH``
        (the same), ``SCALE_DEFAULT``, ``SCALE_FAST``, ``SCALE_REPLICATE`` (the nearest pixel), or
        ``BILINEAR``, as `toolkit run` and Keras' ``load_img`` do.
    pooling
        ``avg``: the global average of the last feature maps (ResNet50, InceptionV3, Xception 2,048;
        EfficientNetLite0, MobileNetV2 1,280; VGG16, VGG19 512). ``none``: these maps flattened
        (InceptionV3 131,072, Xception 204,800, VGG 25,088). Not set: as SparkDL, ``none`` for
        InceptionV3, Xception and VGG, ``avg`` for the others.
    weights
        ``imagenet``, a file of what Keras saves of the network with ``include_top=False``, an
        ``s3a://`` URI, or ``random:SEED`` for tests.
    batchSize
        Number of images that the network computes at once, 1 or more. Not set: the fastest.
    precision
        ``auto`` (bf16 where the processor has it and the features stay the same), ``f32`` or
        ``bf16``.

    Raises
    ------
    TypeError
        A parameter has a value that there is not; the message names those that there are.
    IllegalArgumentException
        By ``transform``: the input column is missing or no column of images, or the output column
        exists.
    RequestError
        By ``transform``: the weights are nowhere to be found, or do not fit.
    """

    scaleHint: Param[str] = Param(
        Params._dummy(),
        "scaleHint",
        "How images are brought to the network's size.",
        typeConverter=one_of(_SCALE_HINTS),
    )
    pooling: Param[str] = Param(
        Params._dummy(),
        "pooling",
        "avg: global average of the last feature maps; none: these maps flattened; "
        "not set: as SparkDL.",
        typeConverter=one_of(["avg", "none"]),
    )

    @keyword_only
    def __init__(
        self,
        *,
        inputCol: str | None = None,
        outputCol: str | None = None,
        modelName: str | None = None,
        scaleHint: str = "SCALE_AREA_AVERAGING",
        pooling: Literal["avg", "none"] | None = None,
        weights: str = "imagenet",
        batchSize: int | None = None,
        precision: str = "auto",
    ) -> None:
        super().__init__()
        self._setDefault(scaleHint="SCALE_AREA_AVERAGING")
        self._set(**given(self))

    @keyword_only
    def setParams(
        self,
        *,
        inputCol: str | None = None,
        outputCol: str | None = None,
        modelName: str | None = None,
        scaleHint: str = "SCALE_AREA_AVERAGING",
        pooling: Literal["avg", "none"] | None = None,
        weights: str = "imagenet",
        batchSize: int | None = None,
        precision: str = "auto",
    ) -> DeepImageFeaturizer:
        """Set those parameters that are given."""
        self._set(**given(self))
        return self

    def setScaleHint(self, value: str) -> DeepImageFeaturizer:
        """Set how images are brought to the network's size."""
        self._set(scaleHint=value)
        return self

    def getScaleHint(self) -> str:
        """Return how images are brought to the network's size."""
        return str(self.getOrDefault(self.scaleHint))

    def setPooling(self, value: str) -> DeepImageFeaturizer:
        """Set what becomes of the last feature maps: ``avg`` or ``none``."""
        self._set(pooling=value)
        return self

    def getPooling(self) -> str:
        """Return what becomes of the last feature maps: ``avg`` or ``none``."""
        flat = self.getModelName() in _FLAT_IN_SPARKDL
        return optional(self, self.pooling) or ("none" if flat else "avg")

    def _computation(self, dataset: DataFrame) -> Computation:
        return self._computation_of(
            dataset,
            head="pooled" if self.getPooling() == "avg" else "flat",
            resampling=_SCALE_HINTS[self.getScaleHint()],
            results=Vectors(),
        )


class DeepImagePredictor(_NamedImageTransformer):
    """Classifies images with a pre-trained network into the 1,000 classes of ImageNet.

    Takes a column of image structs (`ImageSchema`), or of the contents of image files (binary).
    Adds a column of MLlib vectors of 1,000 probabilities, or, with ``decodePredictions``, of the
    most probable classes: arrays of structs ``class`` (WordNet id), ``description`` and
    ``probability``, as Keras' ``decode_predictions``. What can't be read becomes null. Images of
    another size than the network's are resized by the bilinear filter.

    Parameters
    ----------
    inputCol
        Column of the images.
    outputCol
        Column to add.
    modelName
        ``InceptionV3``, ``Xception``, ``ResNet50``, ``VGG16``, ``VGG19``, ``EfficientNetLite0`` or
        ``MobileNetV2``.
    decodePredictions
        Whether to name the most probable classes.
    topK
        How many of them, 1 to 1,000.
    weights
        ``imagenet``, a file of what Keras saves of the network with ``include_top=True``, an
        ``s3a://`` URI, or ``random:SEED`` for tests.
    batchSize, precision
        As for `DeepImageFeaturizer`.

    Raises
    ------
    TypeError, IllegalArgumentException, RequestError
        As `DeepImageFeaturizer`.
    """

    decodePredictions: Param[bool] = Param(
        Params._dummy(),
        "decodePredictions",
        "Whether to give the most probable classes instead of all probabilities.",
        typeConverter=TypeConverters.toBoolean,
    )
    topK: Param[int] = Param(
        Params._dummy(),
        "topK",
        "How many classes to give if decodePredictions is true.",
        typeConverter=at_least(1),
    )

    @keyword_only
    def __init__(
        self,
        *,
        inputCol: str | None = None,
        outputCol: str | None = None,
        modelName: str | None = None,
        decodePredictions: bool = False,
        topK: int = 5,
        weights: str = "imagenet",
        batchSize: int | None = None,
        precision: str = "auto",
    ) -> None:
        super().__init__()
        self._setDefault(decodePredictions=False, topK=5)
        self._set(**given(self))

    @keyword_only
    def setParams(
        self,
        *,
        inputCol: str | None = None,
        outputCol: str | None = None,
        modelName: str | None = None,
        decodePredictions: bool = False,
        topK: int = 5,
        weights: str = "imagenet",
        batchSize: int | None = None,
        precision: str = "auto",
    ) -> DeepImagePredictor:
        """Set those parameters that are given."""
        self._set(**given(self))
        return self

    def setDecodePredictions(self, value: bool) -> DeepImagePredictor:  # noqa: FBT001 - a setter
        """Set whether to give the most probable classes instead of all probabilities."""
        self._set(decodePredictions=value)
        return self

    def getDecodePredictions(self) -> bool:
        """Return whether the most probable classes are given."""
        return bool(self.getOrDefault(self.decodePredictions))

    def setTopK(self, value: int) -> DeepImagePredictor:
        """Set how many classes to give."""
        self._set(topK=value)
        return self

    def getTopK(self) -> int:
        """Return how many classes are given."""
        return int(self.getOrDefault(self.topK))

    def _computation(self, dataset: DataFrame) -> Computation:
        decode = self.getDecodePredictions()
        return self._computation_of(
            dataset,
            head="classes",
            resampling="bilinear",
            results=Classes(min(self.getTopK(), CLASSES)) if decode else Vectors(),
        )
