"""Draw the sample images: fruit on white, turning on two axes, named and laid out as in Fruits-360.

Each fruit is a few signed distance functions (body, stem, leaves) with a procedural skin, so that
no photo and no network is needed. Every image is seeded by its own path: adding a class or an
image changes no other.
"""

from __future__ import annotations

import argparse
import io
import sys
import zlib
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
from drawing.fruit import FRUITS
from drawing.studio import SIZE, Studio, render
from drawing.surfaces import Specimen, rotation
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

JPEG_QUALITY = 90
TURN = 327  # frames in a full turn: Fruits-360's own film is that long
IMAGES_PER_CLASS = 28
TOLERANCE = 1.5  # mean gray levels that JPEG encoders and floating-point units may differ by


def plan(images_per_class: int) -> Iterator[PurePosixPath]:
    """Name the images: two of seven are for Test, every fourth (r_) turns about the other axis."""
    for label in FRUITS:
        for index in range(images_per_class):
            split = "Test" if index % 7 in {2, 5} else "Training"
            axis = "r_" if index % 4 == 3 else ""  # noqa: PLR2004 - the rhythm is the docstring's
            yield PurePosixPath(
                split, label, f"{axis}{index * TURN // images_per_class}_{SIZE}.jpg"
            )


def draw(path: PurePosixPath) -> NDArray[np.uint8]:
    """Draw the image that belongs at a path such as ``Training/Banana/r_35_100.jpg``."""
    fruit = FRUITS[path.parent.name]
    rng = np.random.default_rng(zlib.crc32(str(path).encode()))
    degrees = 360 * int(path.stem.split("_")[-2]) / TURN
    tilt = rotation(0, rng.uniform(*fruit.tilt))
    if path.stem.startswith("r_"):
        turn = rotation(2, degrees) @ tilt @ rotation(1, rng.uniform(0, 360))
    else:
        turn = rotation(2, rng.uniform(-8, 8)) @ tilt @ rotation(1, degrees)
    return render(fruit.grow(Specimen(rng)), Studio.arrange(rng, turn))


def jpeg(path: PurePosixPath) -> bytes:
    """Draw the image that belongs at a path and encode it."""
    buffer = io.BytesIO()
    Image.fromarray(draw(path)).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


def jpegs(paths: Sequence[PurePosixPath]) -> Iterator[tuple[PurePosixPath, bytes]]:
    """Draw images on every processor."""
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        yield from zip(paths, pool.map(jpeg, paths, chunksize=8), strict=True)


def decode(data: bytes) -> NDArray[np.uint8]:
    """Read a JPEG's pixels."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def same(committed: bytes, drawn: bytes) -> bool:
    """Tell whether two JPEGs show the same picture, within `TOLERANCE`."""
    pixels = [decode(data).astype(np.float64) for data in (committed, drawn)]
    return pixels[0].shape == pixels[1].shape and np.abs(pixels[0] - pixels[1]).mean() <= TOLERANCE


def check(folder: Path, images_per_class: int) -> list[str]:
    """Redraw every image in memory; gives what differs in the folder, one line a file."""
    expected = list(plan(images_per_class))
    found = {PurePosixPath(p.relative_to(folder).as_posix()) for p in folder.glob("T*/*/*.jpg")}
    wrong = [f"{path}: not drawn by this script" for path in sorted(found - set(expected))]
    wrong += [f"{path}: missing" for path in expected if path not in found]
    for path, drawn in jpegs([path for path in expected if path in found]):
        if not same((folder / path).read_bytes(), drawn):
            wrong.append(f"{path}: differs from what this script draws")
    return wrong


def main() -> int:
    """Draw or check, as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent, help="default: beside this script"
    )
    parser.add_argument("--images-per-class", type=int, default=IMAGES_PER_CLASS, metavar="N")
    parser.add_argument(
        "--check", action="store_true", help="compare with the files instead of writing"
    )
    options = parser.parse_args()
    if options.check:
        wrong = check(options.out, options.images_per_class)
        print("\n".join(wrong) or "every image is as this script draws it")
        return 1 if wrong else 0
    for path, drawn in jpegs(list(plan(options.images_per_class))):
        target = options.out / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(drawn)
    return 0


if __name__ == "__main__":
    sys.exit(main())
