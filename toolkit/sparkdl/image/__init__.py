"""Images in DataFrames: read, described, converted."""

from __future__ import annotations

from toolkit.sparkdl.image import imageIO
from toolkit.sparkdl.image.schema import ImageSchema

__all__ = ["ImageSchema", "imageIO"]
