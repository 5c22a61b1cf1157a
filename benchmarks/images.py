"""The images that are measured on: the sample images, repeated under other names, in the bucket."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from toolkit.storage import Location, Storage

__all__ = ["LARGE", "large_jpeg", "mirrored_samples", "repeated", "repeated_with_a_large_one"]

_SAMPLES = Path(__file__).parents[1] / "sample_images"
_UPLOADS_IN_FLIGHT = 16
_NOISE = 16  # levels of gray

LARGE = (8000, 5000)
"""Width and height of the large image: 40 megapixels, as the cameras of some phones make."""


def repeated(storage: Storage, count: int) -> Location:
    """Put the sample images into the bucket again and again, unless they are there."""
    prefix = storage.location("images", f"repeated-{count}")
    _fill(storage, prefix, count)
    return prefix


def repeated_with_a_large_one(storage: Storage, count: int) -> Location:
    """Put the same images there, and among them one of 40 megapixels."""
    prefix = storage.location("images", f"repeated-{count}-and-a-large-one")
    large = prefix / "Large" / "large.jpg"
    if not storage.exists(large):
        storage.write(large, large_jpeg())
    _fill(storage, prefix, count, others=1)
    return prefix


def mirrored_samples(storage: Storage) -> Location:
    """Put the sample images into the bucket as they are, Training/ apart from Test/."""
    from toolkit.images.listing import mirror_folder

    prefix = storage.location("images", "sample_images")
    mirror_folder(_SAMPLES, storage, location=prefix)
    return prefix


def large_jpeg() -> bytes:
    """Return a sample image blown up to 40 megapixels, with a sensor's noise: a JPEG of 8 MB."""
    import numpy as np
    from PIL import Image

    with Image.open(_samples()[0]) as small:
        pixels = np.array(small.convert("RGB").resize(LARGE, Image.Resampling.BICUBIC))
    noise = np.random.default_rng(0).integers(0, _NOISE, pixels.shape[:2], np.uint8)
    np.minimum(pixels, 255 - _NOISE, out=pixels)
    pixels += noise[..., np.newaxis]
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=90)
    return file.getvalue()


def _fill(storage: Storage, prefix: Location, count: int, *, others: int = 0) -> None:
    there = sum(1 for _ in storage.objects(prefix))
    if there == count + others:
        return
    with ThreadPoolExecutor(_UPLOADS_IN_FLIGHT) as pool:
        for number, file in enumerate(islice(cycle(_samples()), count)):
            target = prefix / file.parent.name / f"{number}_100.jpg"
            pool.submit(storage.upload, file, target)
    if sum(1 for _ in storage.objects(prefix)) != count + others:
        raise RuntimeError(f"{prefix.uri} can't be filled; delete it and begin again.")


def _samples() -> list[Path]:
    return sorted(_SAMPLES.rglob("*.jpg"))
