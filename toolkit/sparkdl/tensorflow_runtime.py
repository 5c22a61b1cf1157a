"""TensorFlow for stages that run what the user built: on the driver, and in a worker process."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from toolkit.folders import cache_folder
from toolkit.models.tensorflow_import import import_tensorflow

__all__ = ["driver_tensorflow", "executor_tensorflow"]


def driver_tensorflow() -> Any:
    """Import TensorFlow in the user's process; its threads stay as the user has them."""
    return import_tensorflow(keras_home=cache_folder() / "keras")


def executor_tensorflow() -> Any:
    """Import TensorFlow in a worker process, with one thread: Spark has a process for each core."""
    tensorflow = driver_tensorflow()
    with suppress(RuntimeError):  # it has computed in this process: its threads are what they are
        tensorflow.config.threading.set_intra_op_parallelism_threads(1)
        tensorflow.config.threading.set_inter_op_parallelism_threads(1)
    return tensorflow
