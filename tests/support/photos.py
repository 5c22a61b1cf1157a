"""Photos drawn for tests, and how others decode them."""

from __future__ import annotations

import io
from functools import cache
from typing import Any

import numpy as np
from PIL import Image


def encoded(image: Image.Image, file_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


@cache
def photo(height: int, width: int, *, noise: float = 4) -> Image.Image:
    """Draw what a photo has: smooth and fine structure, edges, the noise of a sensor."""
    chance = np.random.default_rng(0)
    pixels = np.full((height, width, 3), 128, np.float32)
    for octave in range(1, 8):
        coarse = chance.normal(0, 40 / octave, (2**octave, 2**octave, 3)).astype(np.float32)
        for channel in range(3):
            layer = Image.fromarray(coarse[..., channel])
            pixels[..., channel] += layer.resize((width, height), Image.Resampling.BICUBIC)
    for _ in range(40):
        top, left = chance.integers(0, height), chance.integers(0, width)
        pixels[top : top + height // 9, left : left + width // 9] += chance.normal(0, 40, 3)
    pixels += chance.normal(0, noise, pixels.shape)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def decoded_whole(data: bytes, size: tuple[int, int]) -> np.ndarray:
    """Return the pixels as Keras gives them."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    return np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR)).astype(int)
