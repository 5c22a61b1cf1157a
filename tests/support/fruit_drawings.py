"""Networks prepared once for the session, and pictures that they can tell apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(scope="session")
def model_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("model-cache")


def _draw_banana(size: tuple[int, int], *, turn: float) -> np.ndarray:
    """Draw a yellow crescent with brown ends on white."""
    image = Image.new("RGB", (448, 448), "white")
    draw = ImageDraw.Draw(image)

    def disc(share: float, arc: float, radius: float, colour: tuple[int, int, int]) -> None:
        angle = np.deg2rad(20 + 150 * share)
        x, y = 224 + arc * np.cos(angle), 110 + arc * np.sin(angle)
        draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=colour)

    for arc, widest, colour in ((170, 44, (225, 185, 40)), (160, 30, (250, 220, 70))):
        for share in np.linspace(0, 1, 200):
            disc(share, arc, widest * np.sin(np.pi * np.clip(share, 0.04, 0.96)) ** 0.45, colour)
    for share in (0, 1):
        disc(share, 165, 14, (90, 70, 30))
    turned = image.resize(size[::-1], Image.Resampling.BICUBIC).rotate(turn, fillcolor="white")
    return np.asarray(turned)


def _draw_orange(size: tuple[int, int], *, seed: int) -> np.ndarray:
    """Draw an orange ball with pores on white, lit from above left."""
    y, x = np.mgrid[: size[0], : size[1]] / size[0] - 0.5
    distance = np.hypot(x, y) / 0.38
    height = np.sqrt(np.clip(1 - distance**2, 0, 1))
    light = np.clip(0.35 + 0.65 * (0.7 * height - 0.9 * x - 0.9 * y), 0.3, 1.1)
    grain = np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)
    pores = Image.fromarray(grain).filter(ImageFilter.GaussianBlur(1))
    light *= 1 + 0.5 * (np.asarray(pores) / 255 - 0.5)
    ball = np.clip(np.array([250, 135, 10]) * light[..., None], 0, 255)
    return np.where((distance < 1)[..., None], ball, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def draw_fruit() -> Callable[[tuple[int, int]], np.ndarray]:
    """Draw three bananas, then three oranges: size to ``[6, height, width, 3]`` uint8."""

    def draw(size: tuple[int, int]) -> np.ndarray:
        bananas = [_draw_banana(size, turn=turn) for turn in (0, 40, 200)]
        return np.stack(bananas + [_draw_orange(size, seed=seed) for seed in range(3)])

    return draw
