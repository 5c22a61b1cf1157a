"""The fruit: for each class, the surfaces that it is made of and the skin that they wear."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from drawing.surfaces import (
    Array,
    Blades,
    Part,
    Shape,
    Skin,
    Specimen,
    blend,
    cluster,
    colour,
    lathe,
    nearest,
    onto,
    polar,
    ramp,
    spiral,
    tube,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@dataclass(frozen=True)
class Fruit:
    """How to grow a specimen, and how far its top leans to the camera: from, to, in degrees."""

    grow: Callable[[Specimen], list[Part]]
    tilt: tuple[float, float] = (12.0, 42.0)


def plain(specimen: Specimen, code: str, other: str, frequency: float = 6) -> Skin:
    """Mottle one colour with another: stems, sepals, leaves."""
    return lambda p: blend(code, other, ramp(-0.6, 0.6, specimen.noise(p, frequency, 2)))


def rough(specimen: Specimen, frequency: float, height: float, octaves: int = 1) -> Shape:
    """Roughen a skin with noise of some height."""
    return lambda p: height * specimen.noise(p, frequency, octaves)


def stalk(specimen: Specimen, *, base: float, length: float, radius: float) -> Part:
    """Grow a woody stem that leans to one side."""
    lean = specimen.rng.uniform(-0.35, 0.35, 2) * length
    knots = [
        (0, base, 0),
        (lean[0] / 3, base + length * 0.6, lean[1] / 3),
        (lean[0], base + length, lean[1]),
    ]
    return Part(
        tube(knots, (radius, radius * 0.8, radius * 1.2)), plain(specimen, "4a3018", "7d6a35")
    )


APPLE = (0.58, 0.84, 0.99, 1.05, 1.06, 1.04, 1.0, 0.96, 0.92, 0.89, 0.87, 0.83, 0.7)


def apple_braeburn(specimen: Specimen) -> list[Part]:
    """Red streaks over yellow-green, from the stem down."""
    side, blush = specimen.between(0, 6.28), specimen.between(-0.25, 0.25)

    def skin(p: Array) -> Array:
        _, angle, azimuth = polar(p)
        streaks = specimen.noise(np.stack([np.cos(azimuth), angle * 0.12, np.sin(azimuth)]), 9, 2)
        patch = specimen.noise(p, 1.3, 2) + 0.45 * np.cos(azimuth - side) + blush
        red = ramp(-0.75, 0.35, patch + 0.45 * streaks) * ramp(0.15, 0.6, angle + 0.1 * streaks)
        rgb = blend(blend("c9b545", "d8a23c", ramp(-1, 1, patch)), "a3141f", red)
        return blend(rgb, "e6cf9a", 0.35 * ramp(0.55, 0.85, specimen.noise(p, 26)))

    body = lathe(specimen, APPLE)
    return [Part(body, skin, gloss=0.5), stalk(specimen, base=0.5, length=0.6, radius=0.045)]


def apple_granny_smith(specimen: Specimen) -> list[Part]:
    """Even bright green with pale dots."""

    def skin(p: Array) -> Array:
        rgb = blend("6fa32a", "a3c84a", ramp(-0.8, 0.8, specimen.noise(p, 1.6, 3)))
        rgb = blend(rgb, "7a7a35", 0.6 * ramp(0.4, 0.1, polar(p)[1]))
        return blend(rgb, "e3eeb4", 0.45 * ramp(0.5, 0.85, specimen.noise(p, 25)))

    body = lathe(specimen, APPLE, ribs=5, depth=0.015)
    return [Part(body, skin, gloss=0.6), stalk(specimen, base=0.5, length=0.6, radius=0.045)]


def avocado(specimen: Specimen) -> list[Part]:
    """Dark pebbled green."""
    profile = (1.46, 1.38, 1.18, 1.02, 0.95, 0.94, 0.96, 0.99, 1.0, 0.99, 0.97, 0.95, 0.94)

    def skin(p: Array) -> Array:
        rgb = blend("1f2a12", "44561f", ramp(-0.7, 0.7, specimen.noise(p, 2, 2)))
        return blend(rgb, "7c8a3c", 0.7 * ramp(0.3, 0.8, specimen.noise(p, 13)))

    nub = tube([(0, 1.3, 0), (0, 1.5, 0)], (0.12, 0.1))
    return [
        Part(lathe(specimen, profile), skin, rough(specimen, 11, 0.03, 2), gloss=0.35),
        Part(nub, plain(specimen, "5a4a24", "8b7a3e")),
    ]


def banana(specimen: Specimen) -> list[Part]:
    """Bend a five-sided tube along an arc, thin at the stem and blunt at the tip."""
    arc, half, thick = (
        specimen.between(1.0, 1.5),
        specimen.between(0.85, 1.0),
        specimen.between(0.24, 0.29),
    )
    bend, ripe, green = 1.5 / arc * 0.9, specimen.between(0.4, 0.75), specimen.between(0.3, 0.9)

    def along(p: Array) -> tuple[Array, Array, Array]:
        x, y, z = p
        t = np.clip(np.arctan2(x, y + bend) * bend / (1.5 * half), -1, 1)
        middle = t * 1.5 * half / bend
        across = np.hypot(x - bend * np.sin(middle), y + bend - bend * np.cos(middle))
        outward = np.hypot(x, y + bend) - bend
        return t, np.hypot(across, z), np.arctan2(z, outward)

    def shape(p: Array) -> Array:
        t, off, around = along(p)
        girth = np.interp(
            t,
            [-1, -0.94, -0.8, -0.72, -0.5, 0, 0.5, 0.8, 0.95, 1],
            [0.3, 0.26, 0.3, 0.42, 0.84, 1, 0.94, 0.66, 0.34, 0.22],
        )
        return (off - thick * girth * (1 + 0.045 * np.cos(5 * around))) * 0.7

    def skin(p: Array) -> Array:
        t, _, around = along(p)
        rgb = blend("e8c233", "f4d95a", ramp(-0.7, 0.7, specimen.noise(p, 3, 2)))
        rgb = blend(rgb, "a9ad3c", green * ramp(-0.5, -0.85, t) + 0.5 * green * ramp(0.8, 0.95, t))
        rgb = blend(rgb, "b58a25", 0.5 * ramp(0.9, 1.0, np.cos(5 * around)))
        spots = ramp(ripe, ripe + 0.2, specimen.noise(p, (6, 14, 14)))
        return blend(rgb, "4b3216", np.maximum(0.75 * spots, ramp(0.93, 0.98, np.abs(t))))

    return [Part(shape, skin, gloss=0.15)]


def blueberry(specimen: Specimen) -> list[Part]:
    """Waxy blue with a dark star where the flower was."""
    profile = (0.74, 0.86, 0.97, 1.0, 1.02, 1.03, 1.03, 1.02, 1.0, 0.97, 0.94, 0.92, 0.91)

    def skin(p: Array) -> Array:
        bloom = ramp(-0.7, 0.9, specimen.noise(p, 2.2, 4))
        rgb = blend("1c2547", "7f93c4", 0.85 * bloom)
        return blend(rgb, "14121f", ramp(0.36, 0.2, polar(p)[1]))

    crown = Blades(
        count=5,
        base=0.72,
        pitch=48,
        length=0.34,
        width=0.2,
        root=0.16,
        curl=0.2,
        phase=specimen.between(0, 6),
    )
    return [
        Part(lathe(specimen, profile), skin, gloss=0.12, fuzz=0.3),
        Part(crown, plain(specimen, "2a2f50", "59648f"), gloss=0.05),
    ]


def cherry(specimen: Specimen) -> list[Part]:
    """Hang a pair on joined green stalks; space is folded, so that one cherry makes two."""
    profile = (0.72, 0.86, 0.96, 1.0, 1.0, 0.99, 0.98, 0.96, 0.94, 0.92, 0.91, 0.9, 0.9)
    ball, apart, high = (
        lathe(specimen, profile),
        specimen.between(0.98, 1.25),
        specimen.between(2.3, 2.9),
    )
    ripe = specimen.between(0, 0.6)

    def fold(p: Array) -> Array:
        x, y, z = p * 1.5
        return np.stack([np.abs(x) - apart, y + 0.5 - 0.15 * np.clip(x / apart, -1, 1), z])

    def skin(p: Array) -> Array:
        rgb = blend("7d0a1b", "c41f2d", ramp(-0.9, 0.9, specimen.noise(p, 1.5, 3)))
        return blend(rgb, "3d0511", ripe * ramp(-0.5, 0.8, specimen.noise(p, 1.1)))

    knots = [
        (0, 0.6, 0),
        (-0.12 * apart, high * 0.55, 0),
        (-0.5 * apart, high * 0.85, 0),
        (-apart, high, 0),
    ]
    stems = tube(knots, (0.06, 0.05, 0.05, 0.09))
    return [
        Part(lambda p: ball(fold(p)) / 1.6, skin, gloss=0.9),
        Part(lambda p: stems(fold(p)) / 1.7, plain(specimen, "5f7a26", "8a8a3a"), gloss=0.1),
    ]


def grape_blue(specimen: Specimen) -> list[Part]:
    """Pack dusty dark berries into a cone under a woody stalk."""
    count, radius = int(specimen.rng.integers(42, 56)), specimen.between(0.25, 0.29)
    centres = spiral(count, 0.95, -0.98)
    taper = 0.62 + 0.42 * centres[:, 1:2]
    centres = centres * np.hstack([taper, np.full_like(taper, 1.25), taper])
    centres += specimen.rng.normal(0, 0.05, centres.shape)
    tints = specimen.rng.uniform(0, 1, count)

    def skin(p: Array) -> Array:
        rgb = blend("17142e", "3d2350", tints[nearest(p, centres)[1]])
        return blend(rgb, "7d86b4", 0.65 * ramp(-0.3, 1.0, specimen.noise(p, 3, 4)))

    return [
        Part(cluster(centres, radius), skin, gloss=0.35),
        Part(tube([(0, 1, 0), (0, -0.9, 0)], (0.45, 0.2)), plain(specimen, "14101c", "2a2033")),
        stalk(specimen, base=1.1, length=0.7, radius=0.06),
    ]


def kiwi(specimen: Specimen) -> list[Part]:
    """Halve a hairy brown egg: pale core, ring of black seeds, green flesh."""
    egg = lathe(specimen, (1.0, 1.0, 1.0, 1.0, 1.0, 1.02, 1.06, 1.08, 1.08))
    seeds = int(specimen.rng.integers(26, 36))

    def flesh(p: Array) -> Array:
        x, _, z = p
        ring, azimuth = np.hypot(x, z * 1.06), np.arctan2(z, x)
        rays = specimen.noise(np.stack([np.cos(azimuth), ring * 0.15, np.sin(azimuth)]), 7, 2)
        rgb = blend("8fbf2f", "5d981c", ramp(-0.6, 0.8, rays + 0.5 * ring))
        rgb = blend(rgb, "e9edc0", ramp(0.34, 0.2, ring + 0.05 * rays))
        rgb = blend(rgb, "c4d87a", 0.8 * ramp(0.9, 0.98, ring))
        turn = azimuth * seeds / (2 * np.pi)
        row = 0.42 + 0.09 * np.sin(2.4 * np.floor(turn))
        spot = np.hypot((turn % 1 - 0.5) * 0.1, (ring - row) * 0.6)
        return blend(rgb, "14100c", ramp(0.042, 0.028, spot))

    def skin(p: Array) -> Array:
        hair = specimen.noise(p, (14, 5, 14), 3)
        return blend("5e4526", "9a7b4a", ramp(-0.8, 0.8, hair))

    def half(p: Array) -> Array:
        gap: Array = np.maximum(egg(p), p[1])
        return gap

    def face(p: Array) -> Array:
        gap: Array = np.maximum(egg(p * 1.04), np.abs(p[1] - 0.004) - 0.004)
        return gap

    return [
        Part(half, skin, rough(specimen, 24, 0.02), gloss=0.05, fuzz=0.5),
        Part(face, flesh, rough(specimen, 9, 0.012, 2), gloss=0.12),
    ]


def citrus(
    specimen: Specimen, profile: Sequence[float], codes: tuple[str, str], tip: str
) -> list[Part]:
    """Pit a glossy rind, with a stem scar in the colour of `tip`."""

    def skin(p: Array) -> Array:
        rgb = blend(*codes, ramp(-0.8, 0.8, specimen.noise(p, 1.5, 3)))
        rgb = blend(
            rgb, colour(codes[0]) * 0.6, 0.5 * ramp(0.35, 0.0, np.abs(specimen.noise(p, 15)))
        )
        return blend(rgb, tip, 0.7 * ramp(0.3, 0.05, polar(p)[1]))

    def pores(p: Array) -> Array:
        pits: Array = np.abs(specimen.noise(p, 15)) ** 0.7
        return 0.02 * pits

    rind = lathe(specimen, profile)
    top = float(onto(rind, np.array([[0.0, 1.0, 0.0]]))[0, 1])
    scar = Blades(count=5, base=top - 0.02, pitch=82, length=0.13, width=0.09)
    return [
        Part(rind, skin, pores, gloss=0.45),
        Part(scar, plain(specimen, "56602a", "8a8a4a")),
    ]


def lemon(specimen: Specimen) -> list[Part]:
    """Yellow with a nipple at the end."""
    profile = (1.3, 1.2, 1.05, 0.97, 0.92, 0.89, 0.88, 0.89, 0.92, 0.98, 1.08, 1.27, 1.52)
    return citrus(specimen, profile, ("e8bf1e", "f6dc4a"), "b3b440")


def limes(specimen: Specimen) -> list[Part]:
    """Green, rounder than a lemon, yellow where the light did not reach."""
    profile = (1.1, 1.07, 1.02, 0.97, 0.94, 0.92, 0.91, 0.92, 0.94, 0.98, 1.04, 1.12, 1.2)
    return citrus(specimen, profile, ("3f7a1c", "86a935"), "9aa04a")


def orange(specimen: Specimen) -> list[Part]:
    """Round and orange, dented at the stem."""
    profile = (0.9, 0.95, 0.99, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.99, 0.98, 0.97, 0.95)
    return citrus(specimen, profile, ("e0700c", "f59a23"), "a8862a")


def peach(specimen: Specimen) -> list[Part]:
    """Velvet with a red cheek and one furrow."""
    profile = (0.68, 0.87, 0.97, 1.0, 1.01, 1.01, 1.0, 1.0, 0.99, 0.98, 0.98, 1.0, 1.06)
    side = specimen.between(0, 6.28)

    def skin(p: Array) -> Array:
        _, angle, azimuth = polar(p)
        streaks = specimen.noise(np.stack([np.cos(azimuth), angle * 0.2, np.sin(azimuth)]), 7, 2)
        cheek = np.cos(azimuth - side) + 0.7 * specimen.noise(p, 2, 4) + 0.35 * streaks
        rgb = blend("efb14e", "e2703a", ramp(-1.3, 0.2, cheek))
        rgb = blend(rgb, "a82a33", ramp(-0.2, 1.0, cheek))
        rgb = blend(rgb, "c9b860", 0.6 * ramp(0.55, 0.1, angle))
        return blend(rgb, "f6dcae", 0.2 * ramp(-0.2, 0.9, specimen.noise(p, 30)))

    body = lathe(specimen, profile, ribs=1, depth=0.16)
    return [Part(body, skin, rough(specimen, 30, 0.006), gloss=0.03, fuzz=0.6)]


def pear(specimen: Specimen) -> list[Part]:
    """Yellow-green with russet freckles."""
    profile = (1.6, 1.45, 1.12, 0.94, 0.88, 0.9, 0.95, 0.99, 1.0, 0.98, 0.94, 0.89, 0.82)

    def skin(p: Array) -> Array:
        rgb = blend("a9ab3a", "d6cc5c", ramp(-0.8, 0.8, specimen.noise(p, 1.4, 3)))
        russet = ramp(0.1, 1.1, specimen.noise(p, 3, 3) + ramp(0.4, 1.6, np.abs(p[1])))
        rgb = blend(rgb, "9a7434", 0.6 * russet)
        return blend(rgb, "6f5a2c", 0.7 * ramp(0.55, 0.72, specimen.noise(p, 21)))

    return [
        Part(lathe(specimen, profile), skin, gloss=0.25),
        stalk(specimen, base=1.5, length=0.5, radius=0.05),
    ]


def pineapple(specimen: Specimen) -> list[Part]:
    """Diamond eyes in spirals under a crown of leaves."""
    barrel = lathe(
        specimen, (1.32, 1.28, 1.14, 0.98, 0.88, 0.83, 0.82, 0.83, 0.88, 0.98, 1.14, 1.28, 1.32)
    )

    def eyes(p: Array) -> Array:
        turn, rise = polar(p)[2] * 9 / (2 * np.pi), p[1] * 2.9
        cell = [(turn + sign * rise) % 1 - 0.5 for sign in (1, -1)]
        offset: Array = np.maximum(np.abs(cell[0]), np.abs(cell[1]))
        return 2 * offset

    def skin(p: Array) -> Array:
        eye = eyes(p) + 0.12 * specimen.noise(p, 12, 2)
        rgb = blend("d99a2b", "8d7a24", ramp(-0.6, 0.6, specimen.noise(p, 1.2, 2) + 0.4 * p[1]))
        rgb = blend("5c3315", rgb, ramp(0.05, 0.4, eye))
        return blend(rgb, "3b3d16", ramp(0.72, 0.98, eye))

    body = Part(lambda p: (barrel(p) + 0.07 * eyes(p) ** 2) * 0.6, skin, gloss=0.2)
    leaf = plain(specimen, "2f4f24", "7d9a55", 3)
    crown = [
        Part(
            Blades(
                count=count,
                base=1.1,
                pitch=pitch,
                length=length * specimen.between(0.9, 1.1),
                width=0.17,
                curl=curl,
                phase=specimen.between(0, 6),
                root=0.05,
            ),
            leaf,
        )
        for count, pitch, length, curl in ((9, 52, 0.8, 0.3), (8, 32, 1.1, 0.3), (6, 14, 1.3, 0.2))
    ]
    return [body, *crown]


def raspberry(specimen: Specimen) -> list[Part]:
    """Set drupelets on a cone under green sepals."""
    cone = lathe(
        specimen, (0.74, 0.8, 0.85, 0.88, 0.86, 0.83, 0.82, 0.84, 0.88, 0.96, 1.06, 1.12, 1.14)
    )
    centres = onto(cone, spiral(84)) + specimen.rng.normal(0, 0.015, (84, 3))
    tints = specimen.rng.uniform(0, 1, 84)

    def skin(p: Array) -> Array:
        gap, which = nearest(p, centres)
        rgb = blend(
            "b3142f", "d93a4e", 0.7 * tints[which] + 0.3 * ramp(-1, 1, specimen.noise(p, 9))
        )
        return blend(
            rgb, "f0a9a6", 0.35 * ramp(0.15, 0.19, gap) * ramp(-0.2, 0.6, specimen.noise(p, 14))
        )

    drupelets = cluster(centres, 0.185)
    sepals = Blades(
        count=5,
        base=0.82,
        pitch=72,
        length=0.62,
        width=0.17,
        curl=0.1,
        phase=specimen.between(0, 6),
    )
    return [
        Part(lambda p: np.minimum(drupelets(p), cone(p) + 0.03), skin, gloss=0.35, fuzz=0.25),
        Part(sepals, plain(specimen, "5f8a35", "93b05c")),
    ]


def strawberry(specimen: Specimen) -> list[Part]:
    """Sink yellow seeds into a red cone under a leafy calyx."""
    cone = lathe(
        specimen, (0.72, 0.78, 0.87, 0.92, 0.9, 0.85, 0.82, 0.82, 0.86, 0.95, 1.08, 1.18, 1.2)
    )
    seeds = onto(cone, spiral(150, 0.9, -1))

    def skin(p: Array) -> Array:
        gap, _ = nearest(p, seeds)
        rgb = blend("b80f1a", "de2b26", ramp(-0.8, 0.8, specimen.noise(p, 2, 3)))
        rgb = blend(rgb, "f0b9a0", ramp(0.6, 0.25, polar(p)[1]))
        rgb = blend(rgb, "6e0812", 0.7 * ramp(0.09, 0.055, gap))
        return blend(rgb, "e8c766", ramp(0.05, 0.035, gap))

    def pits(p: Array) -> Array:
        gap, _ = nearest(p, seeds)
        return 0.035 * ramp(0.1, 0.05, gap) - 0.04 * ramp(0.05, 0.02, gap)

    calyx = [
        Part(
            Blades(
                count=count,
                base=0.72,
                pitch=pitch,
                length=length,
                width=0.24,
                curl=curl,
                phase=specimen.between(0, 6),
            ),
            plain(specimen, "3f7a22", "7fae45"),
        )
        for count, pitch, length, curl in ((7, 84, 0.82, -0.15), (6, 60, 0.6, 0.2))
    ]
    stem = Part(
        tube([(0, 0.7, 0), (0.05, 1.15, 0)], (0.05, 0.06)), plain(specimen, "5f8a35", "93b05c")
    )
    return [Part(cone, skin, pits, gloss=0.55), *calyx, stem]


def tomato(specimen: Specimen) -> list[Part]:
    """Shiny red with shoulders and a green star."""
    profile = (0.66, 0.8, 0.92, 1.0, 1.04, 1.05, 1.04, 1.01, 0.97, 0.92, 0.88, 0.85, 0.83)

    def skin(p: Array) -> Array:
        rgb = blend("c81c10", "e8432a", ramp(-0.9, 0.9, specimen.noise(p, 1.4, 3)))
        return blend(rgb, "d98a2e", 0.5 * ramp(0.7, 0.2, polar(p)[1] + 0.1 * specimen.noise(p, 4)))

    star = Blades(
        count=5,
        base=0.72,
        pitch=78,
        length=0.72,
        width=0.13,
        curl=specimen.between(-0.25, 0.15),
        phase=specimen.between(0, 6),
    )
    stem = Part(
        tube([(0, 0.65, 0), (0.06, 1.1, 0.03)], (0.06, 0.07)), plain(specimen, "4d6b24", "7d9440")
    )
    return [
        Part(lathe(specimen, profile, ribs=5, depth=0.035), skin, gloss=0.9),
        Part(star, plain(specimen, "3f6b22", "6f9a3c")),
        stem,
    ]


def watermelon(specimen: Specimen) -> list[Part]:
    """Jagged dark stripes from pole to pole."""
    profile = (1.12, 1.11, 1.09, 1.06, 1.03, 1.01, 1.0, 1.01, 1.03, 1.06, 1.09, 1.11, 1.12)
    stripes = int(specimen.rng.integers(9, 13))

    def skin(p: Array) -> Array:
        azimuth = polar(p)[2]
        wave = np.cos(azimuth * stripes + 1.6 * specimen.noise(p, 3.5, 3))
        dark = ramp(-0.15, 0.35, wave + 0.5 * specimen.noise(p, 9, 2))
        pale = blend("9db85a", "6f9640", ramp(-0.5, 0.5, specimen.noise(p, 7, 3)))
        return blend(pale, "1f4a1c", dark)

    return [
        Part(lathe(specimen, profile), skin, gloss=0.35),
        stalk(specimen, base=1.05, length=0.3, radius=0.05),
    ]


FRUITS = {
    "Apple Braeburn": Fruit(apple_braeburn),
    "Apple Granny Smith": Fruit(apple_granny_smith),
    "Avocado": Fruit(avocado),
    "Banana": Fruit(banana),
    "Blueberry": Fruit(blueberry, tilt=(30, 65)),
    "Cherry 1": Fruit(cherry, tilt=(0, 20)),
    "Grape Blue": Fruit(grape_blue, tilt=(-5, 25)),
    "Kiwi": Fruit(kiwi, tilt=(45, 80)),
    "Lemon": Fruit(lemon),
    "Limes": Fruit(limes),
    "Orange": Fruit(orange, tilt=(15, 60)),
    "Peach": Fruit(peach),
    "Pear": Fruit(pear, tilt=(-5, 25)),
    "Pineapple": Fruit(pineapple, tilt=(-5, 25)),
    "Raspberry": Fruit(raspberry),
    "Strawberry": Fruit(strawberry),
    "Tomato 1": Fruit(tomato, tilt=(15, 55)),
    "Watermelon": Fruit(watermelon),
}
