"""The committed sample images: their layout, that they are drawn by draw.py, and their use."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from PIL import Image

from tests.support import CHECKOUT

FOLDER = CHECKOUT / "sample_images"
IMAGES = sorted(FOLDER.glob("T*/*/*.jpg"))


def classes(split: str) -> set[str]:
    return {path.name for path in (FOLDER / split).iterdir()}


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


@pytest.fixture
def draw(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import draw

    return draw


def test_training_and_test_hold_the_same_twelve_classes_or_more():
    assert classes("Training") == classes("Test")
    assert len(classes("Training")) >= 12


def test_every_class_has_twenty_images_for_training_and_some_for_test():
    for label in classes("Training"):
        assert len(list((FOLDER / "Training" / label).glob("*_100.jpg"))) >= 20
        assert len(list((FOLDER / "Test" / label).glob("*_100.jpg"))) >= 8


def test_every_image_is_a_small_rgb_jpeg_with_a_fruit_on_white():
    for path in IMAGES:
        with Image.open(path) as image:
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (100, 100)), path
        shown = pixels(path)
        corners = shown[[0, 0, -1, -1], [0, -1, 0, -1]]
        # A banana or a pineapple may reach into one corner, never into two.
        assert (corners.min(axis=1) > 240).sum() >= 3, path
        assert (shown.min(axis=2) < 200).mean() > 0.15, path


def test_all_images_together_stay_under_three_megabytes():
    assert sum(path.stat().st_size for path in IMAGES) < 3_000_000


def test_no_image_occurs_twice():
    assert len({hashlib.sha256(path.read_bytes()).digest() for path in IMAGES}) == len(IMAGES)


def test_the_files_are_those_that_the_script_plans(draw):
    planned = set(draw.plan(draw.IMAGES_PER_CLASS))
    assert planned == {PurePosixPath(path.relative_to(FOLDER).as_posix()) for path in IMAGES}


def test_the_script_draws_what_is_committed(draw):
    planned = list(draw.plan(draw.IMAGES_PER_CLASS))
    for path in planned[::101]:
        assert draw.same((FOLDER / path).read_bytes(), draw.jpeg(path)), path


def test_the_check_tells_one_fruit_from_another_of_its_kind(draw):
    one, other = sorted((FOLDER / "Training" / "Orange").glob("*.jpg"))[:2]
    assert draw.same(one.read_bytes(), one.read_bytes())
    assert not draw.same(one.read_bytes(), other.read_bytes())


@pytest.mark.slow
def test_check_passes_on_what_was_drawn_and_names_what_was_not(tmp_path):
    command = [sys.executable, str(FOLDER / "draw.py"), "--out", str(tmp_path)]
    command += ["--images-per-class", "1"]
    subprocess.run(command, check=True)
    drawn = sorted(tmp_path.glob("*/*/*.jpg"))
    assert len(drawn) == len(classes("Training"))
    assert subprocess.run([*command, "--check"], check=False).returncode == 0

    drawn[0].unlink()
    drawn[1].write_bytes(drawn[2].read_bytes())
    drawn[3].with_name("foreign_100.jpg").write_bytes(drawn[3].read_bytes())
    checked = subprocess.run([*command, "--check"], check=False, capture_output=True, text=True)
    assert checked.returncode == 1
    assert len(checked.stdout.splitlines()) == 3
    for wrong in ("missing", "differs", "foreign_100.jpg: not drawn"):
        assert wrong in checked.stdout


@pytest.mark.slow
def test_real_features_separate_the_classes(tmp_path):
    from sklearn.linear_model import LogisticRegression

    from toolkit.models import load_engine, model_spec, prepare, resolve_weights

    spec = model_spec("EfficientNetLite0")
    weights = resolve_weights(spec, "imagenet", cache=tmp_path)
    prepared = prepare(spec, weights, engine="openvino", precision="f32", cache=tmp_path)
    engine = load_engine(prepared, threads=2)

    def features(split: str) -> tuple[np.ndarray, list[str]]:
        files = [path for path in IMAGES if path.parts[-3] == split]
        images = [Image.open(path).resize((224, 224), Image.Resampling.BILINEAR) for path in files]
        batch = np.stack([np.asarray(image) for image in images])
        return engine.compute(batch), [path.parent.name for path in files]

    classifier = LogisticRegression(max_iter=1000).fit(*features("Training"))
    assert classifier.score(*features("Test")) >= 0.95
