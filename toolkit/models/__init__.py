"""The networks: which there are, their weights, and the engines that run them."""

from __future__ import annotations

from toolkit.models.engines import Engine, engine_for, executed_precision, load_engine
from toolkit.models.prepared import EngineName, Precision, PreparedModel, prepare
from toolkit.models.weights import ResolvedWeights, WeightsBucket, resolve_weights
from toolkit.models.zoo import DEFAULT_MODEL, MODELS, ModelSpec, model_spec

__all__ = [
    "DEFAULT_MODEL",
    "MODELS",
    "Engine",
    "EngineName",
    "ModelSpec",
    "Precision",
    "PreparedModel",
    "ResolvedWeights",
    "WeightsBucket",
    "engine_for",
    "executed_precision",
    "load_engine",
    "model_spec",
    "prepare",
    "resolve_weights",
]
