"""The studio: sphere-trace a fruit [1]_ in front of a camera and light it on white.

.. [1] J. C. Hart, "Sphere tracing: a geometric method for the antialiased ray tracing of implicit
   surfaces", The Visual Computer 12 (1996).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from drawing.surfaces import Array, Part, Shape

SIZE = 100  # pixels, width and height of an image
SUPERSAMPLING = 2  # rays per pixel, each way
FAR = 5.6  # the camera stands at 2.8, nothing reaches behind -2.8
NEAR_ENOUGH = 3e-3
MARCHES = 32  # steps after which a ray counts as a miss
BLOCK = 5  # pixels, each way, that are marched together at first


@dataclass(frozen=True)
class Window:
    """The square of the camera's plane that a picture shows: its centre and half its side."""

    x: float = 0.0
    y: float = 0.0
    half: float = 2.7


@dataclass(frozen=True)
class Studio:
    """Where the camera and the lamp stand, in the fruit's own coordinates, and how bright it is."""

    turn: Array  # fruit -> camera, [3, 3]
    lamp: Array  # unit direction to the lamp, [3, 1]
    key: float
    fill: float
    margin: float  # share of the picture left free around the fruit

    @classmethod
    def arrange(cls, rng: np.random.Generator, turn: Array) -> Studio:
        """Put the lamp up to the left, a little elsewhere each time."""
        lamp = np.array([rng.uniform(-0.8, -0.1), rng.uniform(0.4, 0.9), rng.uniform(0.8, 1.1)])
        return cls(
            turn=turn,
            lamp=turn.T @ (lamp / np.linalg.norm(lamp))[:, None],
            key=rng.uniform(0.85, 1.1),
            fill=rng.uniform(0.38, 0.5),
            margin=rng.uniform(0.02, 0.1),
        )

    def rays(self, window: Window, wide: int) -> tuple[Array, Array]:
        """Give the origins [3, wide * wide], row by row, and the one direction [3, 1] of rays."""
        grid = (np.arange(wide) + 0.5) / wide * 2 - 1
        across, up = np.meshgrid(window.x + window.half * grid, window.y - window.half * grid)
        origins = np.stack([across, up, np.full_like(up, FAR / 2)]).reshape(3, -1)
        return self.turn.T @ origins, self.turn.T @ np.array([[0.0], [0.0], [-1.0]])


def union(parts: Sequence[Part]) -> Shape:
    """Join the parts' surfaces."""
    return lambda points: np.min([part.shape(points) for part in parts], axis=0)


def trace(
    shape: Shape, rays: tuple[Array, Array], start: Array, limit: Array, near: float
) -> Array:
    """March rays to the surface; gives their length, `FAR` where they miss it or pass the limit."""
    depth, active = start.copy(), np.flatnonzero(start < limit)
    for step in range(MARCHES):
        gap = shape(rays[0][:, active] + rays[1] * depth[active])
        depth[active] += gap
        # Rays that skim an edge come near in ever shorter steps: meet them half-way.
        onward = (np.abs(gap) > near * (1 + step / 4)) & (depth[active] < limit[active])
        active = active[onward]
    depth[active] = FAR
    return np.where(depth < limit, depth, FAR)


def approach(shape: Shape, studio: Studio, window: Window, wide: int) -> Array:
    """March one ray a block of pixels, as far as all of the block may go without a look.

    It meets the surface inflated by half the block's diagonal: where it misses that, the whole
    block misses the surface.
    """
    blocks = wide // BLOCK
    reach = 2**0.5 * window.half / blocks
    open_end = np.full(blocks * blocks, FAR)
    rays = studio.rays(window, blocks)
    depth = trace(lambda p: shape(p) - reach, rays, 0 * open_end, open_end, reach)
    grid = depth.reshape(blocks, blocks)
    return grid.repeat(BLOCK, axis=0).repeat(BLOCK, axis=1).ravel()


def expose(
    parts: Sequence[Part], studio: Studio, window: Window, wide: int
) -> tuple[Array, NDArray[np.int64]]:
    """See which part each ray meets first; gives the points, [3, N], and the parts, -1 for none."""
    rays = studio.rays(window, wide)
    depth, owner = np.full(wide * wide, FAR), np.full(wide * wide, -1)
    for index, part in enumerate(parts):
        start = approach(part.shape, studio, window, wide)
        reached = trace(part.shape, rays, start, depth, NEAR_ENOUGH)
        owner[reached < depth] = index
        depth = np.minimum(depth, reached)
    return rays[0] + rays[1] * depth, owner


def frame(parts: Sequence[Part], studio: Studio) -> Window:
    """Fit the window to the fruit's silhouette, as Fruits-360 crops its photos."""
    points, owner = expose(parts, studio, Window(), 80)
    across, up, _ = studio.turn @ points[:, owner >= 0]
    side = max(np.ptp(across), np.ptp(up)) + 2 * Window.half / 80
    x, y = (axis.min() + np.ptp(axis) / 2 for axis in (across, up))
    return Window(x, y, side / 2 * (1 + studio.margin))


def gradient(field: Shape, points: Array) -> Array:
    """Give the unit gradient by differences to the corners of a tetrahedron."""
    corners = np.array([[1, -1, -1], [-1, -1, 1], [-1, 1, -1], [1, 1, 1]])
    slope = sum(c[:, None] * field(points + 0.006 * c[:, None]) for c in corners)
    unit: Array = slope / (np.linalg.norm(slope, axis=0) + 1e-12)
    return unit


def openness(shape: Shape, points: Array, direction: Array) -> Array:
    """Estimate how little the fruit itself covers a direction; 0 shut to 1 free."""
    free = [shape(points + direction * reach) / reach for reach in (0.1, 0.35)]
    share: Array = np.clip(0.25 + 1.6 * np.min(free, axis=0), 0, 1)
    return share


def shade(part: Part, scene: Shape, points: Array, studio: Studio) -> Array:
    """Light a part's points: lamp, white room, highlight and velvet; linear RGB [3, N]."""
    normal = gradient(lambda p: part.shape(p) + part.relief(p), points)
    up, view = (
        studio.turn.T @ np.array([[0.0], [1.0], [0.0]]),
        studio.turn.T @ np.array([[0.0], [0.0], [1.0]]),
    )
    half = studio.lamp + view
    lambert = np.clip(((normal * studio.lamp).sum(0) + 0.25) / 1.25, 0, 1)
    room = studio.fill * (1 + 0.45 * (normal * up).sum(0)) * openness(scene, points, normal)
    light = room + studio.key * lambert * openness(scene, points, studio.lamp)
    shine = np.clip((normal * half / np.linalg.norm(half)).sum(0), 0, 1)
    rim = (1 - np.clip((normal * view).sum(0), 0, 1)) ** 3
    gleam = part.gloss * (0.9 * shine**70 + 0.12 * shine**10 + 0.15 * rim * room)
    albedo = part.skin(points)
    lit: Array = albedo * light + gleam + part.fuzz * 0.25 * rim * (0.5 + albedo)
    return lit


def render(parts: Sequence[Part], studio: Studio) -> NDArray[np.uint8]:
    """Photograph the fruit on white; sRGB [SIZE, SIZE, 3]."""
    wide = SIZE * SUPERSAMPLING
    points, owner = expose(parts, studio, frame(parts, studio), wide)
    scene = union(parts)
    picture = np.ones((3, wide * wide))
    for index, part in enumerate(parts):
        mine = owner == index
        picture[:, mine] = shade(part, scene, points[:, mine], studio)
    blocks = np.clip(picture, 0, 1).reshape(3, SIZE, SUPERSAMPLING, SIZE, SUPERSAMPLING)
    encoded: Array = blocks.mean(axis=(2, 4)).transpose(1, 2, 0) ** (1 / 2.2)
    return np.rint(encoded * 255).astype(np.uint8)
