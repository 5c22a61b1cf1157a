"""Surfaces as signed distance functions, and the noise, colours and coordinates of their skins.

A fruit's stem axis is +y and its body about 1 in radius.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]  # points and colours are [3, N], everything else is [N]
Shape = Callable[[Array], Array]  # points -> a lower bound of their distance to the surface
Skin = Callable[[Array], Array]  # points on the surface -> linear RGB, 0 to 1

LATTICE = np.random.default_rng(360).uniform(-1, 1, 32**3)


def value_noise(points: Array) -> Array:
    """Interpolate random values between the points of the integer lattice; -1 to 1."""
    cell = np.floor(points)
    near = points - cell
    near *= near * (3 - 2 * near)
    corner = cell.astype(np.int64)
    index = [[((corner[axis] + step) & 31) << (5 * axis) for step in (0, 1)] for axis in range(3)]
    weight = [(1 - near[axis], near[axis]) for axis in range(3)]
    total = np.zeros(points.shape[1])
    for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
        row = index[1][i] + index[2][j]
        along = (
            weight[0][0] * LATTICE[index[0][0] + row] + weight[0][1] * LATTICE[index[0][1] + row]
        )
        total += along * weight[1][i] * weight[2][j]
    return total


class Specimen:
    """One fruit's own chance: the measures drawn for it and the noise that its skin is made of."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self._place = rng.uniform(0, 32, (3, 1))

    def between(self, low: float, high: float) -> float:
        """Draw a measure of this specimen."""
        return float(self.rng.uniform(low, high))

    def noise(self, points: Array, frequency: float | Sequence[float], octaves: int = 1) -> Array:
        """Sum `octaves` of noise, each twice as fine and half as strong; about -1 to 1."""
        scaled = points * np.reshape(frequency, (-1, 1))
        return sum(
            (value_noise(scaled * 2**n + self._place) / 2**n for n in range(octaves)),
            start=np.zeros(points.shape[1]),
        )


def colour(code: str) -> Array:
    """Turn an sRGB code such as "d8262e" into linear RGB, [3, 1]."""
    return (np.frombuffer(bytes.fromhex(code), np.uint8)[:, None] / 255) ** 2.2


def blend(low: Array | str, high: Array | str, share: Array) -> Array:
    """Mix two colours; a share of 0 gives the first, 1 the second."""
    low, high = (colour(c) if isinstance(c, str) else c for c in (low, high))
    return low + (high - low) * share


def ramp(low: float, high: float, x: Array) -> Array:
    """Rise smoothly from 0 at `low` to 1 at `high` (fall where low > high)."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def polar(points: Array) -> tuple[Array, Array, Array]:
    """Give radius, angle from the stem axis (+y) and azimuth, in radians."""
    x, y, z = points
    ring = np.hypot(x, z)
    return np.hypot(ring, y), np.arctan2(ring, y), np.arctan2(z, x)


def rotation(axis: int, degrees: float) -> Array:
    """Give the matrix that turns points about one coordinate axis."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    matrix = np.eye(3)
    i, j = (axis + 1) % 3, (axis + 2) % 3
    matrix[[i, i, j, j], [i, j, i, j]] = c, -s, s, c
    return matrix


def lathe(
    specimen: Specimen, profile: Sequence[float], *, ribs: int = 0, depth: float = 0.0
) -> Shape:
    """Turn a profile about the stem axis.

    The profile is the distance from the centre at equal angles from stem to blossom end. Each
    specimen bends it a little; `ribs` furrows of `depth` run from pole to pole.
    """
    angles = np.linspace(0, np.pi, 181)
    table = np.interp(angles, np.linspace(0, np.pi, len(profile)), profile)
    kernel = np.hanning(25) / np.hanning(25).sum()
    table = np.convolve(np.pad(table, 12, mode="reflect"), kernel, mode="valid")
    table *= 1 + specimen.rng.normal(0, 0.02, 3) @ np.cos([[1], [2], [3]] * angles)
    # The gradient of (radius - surface) is longer than 1 where the profile is steep.
    steepness = np.hypot(1, np.abs(np.gradient(table, angles) / table) + ribs * depth)
    # Looked up by the cosine of the angle: that needs no arctan, and at the poles, where cosines
    # crowd, a smooth profile is straight in the cosine.
    steps = np.arccos(np.linspace(1, -1, 1025))
    table, steepness = np.interp(steps, angles, table), np.interp(steps, angles, steepness)
    rise = np.diff(table, append=table[-1])
    lean = specimen.rng.uniform(-0.03, 0.03, 2)

    def shape(points: Array) -> Array:
        x, y, z = points
        radius = np.sqrt(x * x + y * y + z * z) + 1e-9
        at = (1 - y / radius) * 512
        step = at.astype(np.int64)
        bend = 1 + (lean[0] * x + lean[1] * z) / radius
        if ribs:
            furrow = np.cos(np.arctan2(z, x) * ribs / 2) ** 2
            bend -= depth * np.hypot(x, z) / radius * furrow ** (20 / ribs)
        gap: Array = (radius - (table[step] + (at - step) * rise[step]) * bend) / steepness[step]
        return gap

    return shape


def tube(knots: Sequence[tuple[float, float, float]], radii: Sequence[float]) -> Shape:
    """Join round cones along a chain of knots: stems and stalks."""
    chain = [np.reshape(knot, (3, 1)) for knot in knots]

    def shape(points: Array) -> Array:
        distance = np.full(points.shape[1], np.inf)
        for start, end, r0, r1 in zip(chain, chain[1:], radii, radii[1:], strict=False):
            along = end - start
            t = np.clip(((points - start) * along).sum(0) / (along**2).sum(), 0, 1)
            gap = points - start - along * t
            distance = np.minimum(distance, np.sqrt((gap**2).sum(0)) - (r0 + (r1 - r0) * t))
        return distance * 0.9

    return shape


@dataclass(frozen=True)
class Blades:
    """A ring of pointed leaves about the stem axis.

    They start at height `base` and distance `root` from the axis, `pitch` degrees off the axis,
    and bend outwards by `curl` of their length.
    """

    count: int
    base: float
    pitch: float
    length: float
    width: float
    curl: float = 0.0
    phase: float = 0.0
    root: float = 0.0

    def __call__(self, points: Array) -> Array:
        """Bound the distance to the nearest leaf; the ring is folded into one sector."""
        x, y, z = points
        sine, cosine, thin = np.sin(np.radians(self.pitch)), np.cos(np.radians(self.pitch)), 0.35
        sector = 2 * np.pi / self.count
        azimuth = (np.arctan2(z, x) + self.phase + sector / 2) % sector - sector / 2
        ring = np.hypot(x, z)
        out, across, up = ring * np.cos(azimuth) - self.root, ring * np.sin(azimuth), y - self.base
        along = out * sine + up * cosine
        t = np.clip(along / self.length, 0, 1)
        beyond = along - t * self.length
        off = out * cosine - up * sine - self.curl * self.length * t**2
        breadth = self.width * np.sqrt(1 - t) * (0.55 + 1.3 * t * (1 - t))
        gap: Array = np.sqrt((off / thin) ** 2 + across**2 + beyond**2) - breadth
        return gap * thin * 0.8


def cluster(centres: Array, radius: float) -> Shape:
    """Gather equal balls at `centres`, [M, 3]."""
    constant = (centres**2).sum(1)[:, None]

    def shape(points: Array) -> Array:
        squares = (constant - 2 * centres @ points).min(0) + (points**2).sum(0)
        distance: Array = np.sqrt(np.maximum(squares, 0))
        return distance - radius

    return shape


def nearest(points: Array, centres: Array) -> tuple[Array, NDArray[np.int64]]:
    """Give the distance to the nearest of the centres, [M, 3], and its index."""
    squares = (centres**2).sum(1)[:, None] - 2 * centres @ points
    which = squares.argmin(0)
    gap = points - centres[which].T
    return np.sqrt((gap**2).sum(0)), which


def spiral(count: int, top: float = 1.0, bottom: float = -1.0) -> Array:
    """Spread points over the unit sphere along the golden spiral, [count, 3]."""
    y = np.linspace(top, bottom, count)
    ring, azimuth = np.sqrt(np.clip(1 - y * y, 0, None)), np.arange(count) * np.pi * (3 - 5**0.5)
    return np.stack([ring * np.cos(azimuth), y, ring * np.sin(azimuth)], axis=1)


def onto(shape: Shape, directions: Array) -> Array:
    """Push unit directions, [M, 3], out to a surface that each of them meets once."""
    reach = np.zeros(len(directions))
    for _ in range(60):
        reach -= shape((directions * reach[:, None]).T)
    return directions * reach[:, None]


def smooth(points: Array) -> Array:
    """Have no relief."""
    return np.zeros(points.shape[1])


@dataclass(frozen=True)
class Part:
    """A surface with its skin: `relief` roughens the light on it, `gloss` and `fuzz` are 0 to 1."""

    shape: Shape
    skin: Skin
    relief: Shape = smooth
    gloss: float = 0.2
    fuzz: float = 0.0
