"""The networks: which there are, their weights, and the engines that run them."""

from __future__ import annotations

from toolkit.models.bucket import ModelBucket
from toolkit.models.conversion import EngineName
from toolkit.models.engines import Engine, executed_precision, load_engine
from toolkit.models.fidelity import Fidelity, measure_fidelity
from toolkit.models.imagenet import Prediction, imagenet_classes, top_classes
from toolkit.models.prepared import (
    EXACT_PRECISIONS,
    Precision,
    PreparedModel,
    check_exact,
    check_setting,
    fetch_prepared,
    prepare,
)
from toolkit.models.quantization import CALIBRATION_IMAGES, Calibration
from toolkit.models.weights import ResolvedWeights, resolve_weights
from toolkit.models.zoo import CLASSES, DEFAULT_MODEL, MODELS, Head, ModelSpec, model_spec

__all__ = [
    "CALIBRATION_IMAGES",
    "CLASSES",
    "DEFAULT_MODEL",
    "EXACT_PRECISIONS",
    "MODELS",
    "Calibration",
    "Engine",
    "EngineName",
    "Fidelity",
    "Head",
    "ModelBucket",
    "ModelSpec",
    "Precision",
    "Prediction",
    "PreparedModel",
    "ResolvedWeights",
    "check_exact",
    "check_setting",
    "executed_precision",
    "fetch_prepared",
    "imagenet_classes",
    "load_engine",
    "measure_fidelity",
    "model_spec",
    "prepare",
    "resolve_weights",
    "top_classes",
]
