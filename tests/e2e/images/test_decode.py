"""Large photos: the memory that they take in a process of its own, and what their features lose."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from tests.support.photos import decoded_whole, encoded, photo
from toolkit.folders import cache_folder
from toolkit.images.decode import decode_image
from toolkit.models import load_engine, model_spec, prepare, resolve_weights

if TYPE_CHECKING:
    from pathlib import Path

PEAK_MEMORY = """
import re, sys
from pathlib import Path
from toolkit.images.decode import decode_image

def peak():
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1]) / 1024

small, large = (Path(name).read_bytes() for name in sys.argv[1:])
decode_image(small, size=(224, 224))
before = peak()
decode_image(large, size=(224, 224))
print(peak() - before)
"""


@pytest.mark.parametrize(("progressive", "most_mib"), [(False, 16), (True, 150)])
def test_memory_of_forty_megapixels(tmp_path: Path, progressive: bool, most_mib: int) -> None:  # noqa: FBT001
    # Decoded whole they take 157 MiB; 266 if progressive.
    tile = np.asarray(photo(900, 1200))
    forty_megapixels = Image.fromarray(np.tile(tile, (6, 6, 1)))
    file = tmp_path / "photo.jpg"
    forty_megapixels.save(file, quality=92, progressive=progressive)
    small = tmp_path / "small.jpg"
    photo(100, 100).save(small)
    command = [sys.executable, "-c", PEAK_MEMORY, small, file]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert float(output) < most_mib


def test_features_of_large_jpegs_change_less_than_by_rounding(sample_files) -> None:
    def cosines(pixels: list[np.ndarray]) -> np.ndarray:
        features = engine.compute(np.stack(pixels))
        lengths = np.linalg.norm(features, axis=1) * np.linalg.norm(expected, axis=1)
        return (features * expected).sum(axis=1) / lengths

    spec = model_spec("EfficientNetLite0")
    weights = resolve_weights(spec, "imagenet", cache=cache_folder())
    engine = load_engine(prepare(spec, weights, precision="f32", cache=cache_folder()), threads=2)
    size = spec.input_size
    files = [encoded(photo(1800, 2400), "JPEG", quality=92)]
    chance = np.random.default_rng(0)
    for file in sample_files[::3]:
        fruit = np.asarray(Image.open(file).resize((2400, 1800)))
        grainy = np.clip(fruit + chance.normal(0, 4, fruit.shape), 0, 255).astype(np.uint8)
        files.append(encoded(Image.fromarray(grainy), "JPEG", quality=92))
    whole = [decoded_whole(file, size) for file in files]
    expected = engine.compute(np.stack(whole).astype(np.uint8))
    scaled = cosines([decode_image(file, size=size) for file in files])
    # One level up or down in a tenth of the values.
    steps = [chance.choice([-1, 0, 1], each.shape, p=[0.05, 0.9, 0.05]) for each in whole]
    rounded = cosines(
        [np.clip(a + b, 0, 255).astype(np.uint8) for a, b in zip(whole, steps, strict=True)]
    )
    assert 0.998 < scaled.min() < 1 - 1e-6
    assert rounded.min() < scaled.min()
    assert np.median(rounded) < np.median(scaled)
