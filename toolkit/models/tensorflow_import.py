"""Imports TensorFlow in the one way of this package: silent, deaf to the user's Keras settings."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["import_tensorflow", "use_threads"]


def import_tensorflow(*, keras_home: Path) -> Any:
    """Import TensorFlow (seconds, and hundreds of MB) with its noise off.

    Parameters
    ----------
    keras_home
        Folder where Keras reads and writes its ``keras.json``, unless ``KERAS_HOME`` is set.

    Returns
    -------
    module
        ``tensorflow``; ``keras`` can be imported from then on.
    """
    if "tensorflow" not in sys.modules:
        # Both are read once, when the libraries load. 3 leaves only fatal messages.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        # oneDNN announces itself on stderr whatever the log level, changes the last digits of
        # results, and is no faster on the networks of the zoo.
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
        # Keras would write ~/.keras/keras.json, and obey a data format or backend named there.
        os.environ.setdefault("KERAS_HOME", str(keras_home))
        os.environ["KERAS_BACKEND"] = "tensorflow"
    import tensorflow as tf

    return tf


def use_threads(tensorflow: Any, threads: int) -> None:
    """Let TensorFlow compute with so many threads, unless it has begun in this process."""
    with suppress(RuntimeError):
        tensorflow.config.threading.set_intra_op_parallelism_threads(threads)
        tensorflow.config.threading.set_inter_op_parallelism_threads(1)
