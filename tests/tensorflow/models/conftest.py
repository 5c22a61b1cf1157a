"""Networks and drawings of fruit; a backbone that is built in no time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.support.fruit_drawings import draw_fruit, model_cache
from toolkit.models import graph
from toolkit.models.tensorflow_import import import_tensorflow

if TYPE_CHECKING:
    from pathlib import Path

    from toolkit.models import ModelSpec

__all__ = ["draw_fruit", "keras", "model_cache", "tiny_backbones"]


@pytest.fixture(scope="session")
def keras(model_cache: Path) -> Any:
    """Return Keras, imported as conversions do."""
    import_tensorflow(keras_home=model_cache / "keras")
    import keras

    return keras


@pytest.fixture
def tiny_backbones(keras: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each network of the zoo, whose preprocessing stays its own, a backbone of two layers."""

    def build(spec: ModelSpec, input_size: tuple[int, int], head: str = "pooled") -> Any:
        return keras.Sequential(
            [
                keras.Input((*input_size, 3)),
                keras.layers.Conv2D(8, 7, strides=4, use_bias=False),
                keras.layers.BatchNormalization(),
                keras.layers.Activation("relu"),
                keras.layers.GlobalAveragePooling2D(),
            ]
        )

    monkeypatch.setattr(graph, "_build_backbone", build)
