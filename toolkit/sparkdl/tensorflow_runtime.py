"""TensorFlow for stages that run what the user built: on the driver, and in a worker process."""

from __future__ import annotations

from typing import Any

from toolkit.folders import cache_folder
from toolkit.models.tensorflow_import import import_tensorflow, use_threads

__all__ = ["driver_tensorflow", "executor_tensorflow"]


def driver_tensorflow() -> Any:
    """Import TensorFlow in the user's process; its threads stay as the user has them."""
    return import_tensorflow(keras_home=cache_folder() / "keras")


def executor_tensorflow() -> Any:
    """Import TensorFlow in a worker process, with one thread: Spark has a process for each core."""
    tensorflow = driver_tensorflow()
    use_threads(tensorflow, 1)
    return tensorflow
