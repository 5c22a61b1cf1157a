"""Databricks' SparkDL 1.6 API on today's Spark, Keras and TensorFlow.

What an old notebook imported from ``sparkdl``, it imports from here; what differs is in
``docs/sparkdl-migration.md``. Importing this needs Spark, and neither Keras nor TensorFlow.
"""

from __future__ import annotations

from toolkit.sparkdl.estimators import KerasImageFileEstimator
from toolkit.sparkdl.image import ImageSchema, imageIO
from toolkit.sparkdl.keras_image import KerasImageFileTransformer
from toolkit.sparkdl.keras_tensor import KerasTransformer
from toolkit.sparkdl.named_image import DeepImageFeaturizer, DeepImagePredictor
from toolkit.sparkdl.tf_graph import TFInputGraph
from toolkit.sparkdl.tf_image import TFImageTransformer
from toolkit.sparkdl.tf_tensor import TFTransformer
from toolkit.sparkdl.udf import registerKerasImageUDF

__all__ = [
    "DeepImageFeaturizer",
    "DeepImagePredictor",
    "ImageSchema",
    "KerasImageFileEstimator",
    "KerasImageFileTransformer",
    "KerasTransformer",
    "TFImageTransformer",
    "TFInputGraph",
    "TFTransformer",
    "imageIO",
    "registerKerasImageUDF",
]
