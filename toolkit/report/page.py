"""Draws the page of a run: its figures, the scree plot and the first two components."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from toolkit.runs import RunRecord

__all__ = ["render"]

_WIDTH, _HEIGHT, _MARGIN = 640, 360, 36
# The golden angle: neighbouring classes get hues far apart, however many there are.
_HUE_STEP = 0.61803398875


@dataclass(frozen=True, slots=True)
class _Dot:
    x: float
    y: float
    label: str
    colour: str


def render(
    record: RunRecord,
    explained_variance_ratio: np.ndarray,
    sample: Sequence[tuple[str, float, float]],
) -> str:
    """Return the page as HTML.

    Parameters
    ----------
    record
        A finished run.
    explained_variance_ratio
        Float64 [k], share of the variance per component, 0 to 1.
    sample
        Label, first and second component of some images.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined)
    template = environment.from_string(
        files("toolkit.report").joinpath("page.html").read_text(encoding="utf-8")
    )
    labels = sorted({label for label, _, _ in sample})
    colours = {label: _colour(index) for index, label in enumerate(labels)}
    return template.render(
        run=record,
        colours=colours,
        dots=_dots(sample, colours),
        scree=_scree(np.cumsum(explained_variance_ratio)),
        width=_WIDTH,
        height=_HEIGHT,
        margin=_MARGIN,
    )


def _colour(index: int) -> str:
    red, green, blue = colorsys.hls_to_rgb(index * _HUE_STEP % 1, 0.45, 0.65)
    return f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"


def _dots(sample: Sequence[tuple[str, float, float]], colours: dict[str, str]) -> list[_Dot]:
    if not sample:
        return []
    points = np.array([(x, y) for _, x, y in sample], dtype=float)
    low, spread = points.min(axis=0), np.ptp(points, axis=0)
    scaled = (points - low) / np.where(spread > 0, spread, 1)
    return [
        _Dot(*_place(x, y), label, colours[label])
        for (label, _, _), (x, y) in zip(sample, scaled, strict=True)
    ]


def _scree(cumulative: np.ndarray) -> str:
    """Return the points of the polyline of the cumulative explained variance."""
    steps = np.linspace(0, 1, len(cumulative) + 1)
    heights = np.concatenate([[0.0], cumulative])
    return " ".join(
        f"{x:.1f},{y:.1f}" for x, y in (_place(a, b) for a, b in zip(steps, heights, strict=True))
    )


def _place(x: float, y: float) -> tuple[float, float]:
    """Map the unit square to the picture; SVG's y axis points down."""
    return (
        _MARGIN + x * (_WIDTH - 2 * _MARGIN),
        _HEIGHT - _MARGIN - y * (_HEIGHT - 2 * _MARGIN),
    )
