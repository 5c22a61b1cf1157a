"""TensorFlow and Keras in this process, and one saved model for all tests of stages with Keras."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from toolkit.sparkdl.keras_models import import_keras
from toolkit.sparkdl.tensorflow_runtime import driver_tensorflow

if TYPE_CHECKING:
    from pathlib import Path

ROWS = 40  # more than one batch of a model


@pytest.fixture(scope="session")
def tf() -> Any:
    return driver_tensorflow()


@pytest.fixture(scope="session")
def keras() -> Any:
    return import_keras()


@pytest.fixture(scope="session")
def classifier(keras: Any) -> Any:
    """Return a model of images of 8 x 8, with layers that training changes."""
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Conv2D(4, 3, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5),
            keras.layers.Flatten(),
            keras.layers.Dense(5, activation="softmax"),
        ]
    )


@pytest.fixture(scope="session")
def classifier_file(classifier: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("classifier") / "model.keras"
    classifier.save(file)
    return str(file)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return paths of dark and of light images, in turn."""
    folder: Path = tmp_path_factory.mktemp("pictures")
    chance = np.random.default_rng(0)
    for number in range(ROWS):
        pixels = chance.integers(0, 100, (10, 12, 3), np.uint8) + 150 * (number % 2)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number:02}.png")
    return sorted(map(str, folder.iterdir()))
