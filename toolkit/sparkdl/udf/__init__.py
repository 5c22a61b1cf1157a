"""Keras models as functions of SQL."""

from __future__ import annotations

from toolkit.sparkdl.udf.keras_image_model import registerKerasImageUDF

__all__ = ["registerKerasImageUDF"]
