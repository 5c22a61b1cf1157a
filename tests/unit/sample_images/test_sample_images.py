"""The committed sample images: their layout, and that they are drawn by draw.py."""

from __future__ import annotations

import hashlib
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
    # About the other axis, for Test; tests/e2e draws one of each class, for Training.
    path = next(path for path in draw.plan(draw.IMAGES_PER_CLASS) if "Test" in path.parts)
    turned = next(path for path in draw.plan(draw.IMAGES_PER_CLASS) if path.stem.startswith("r_"))
    for each in (path, turned):
        assert draw.same((FOLDER / each).read_bytes(), draw.jpeg(each)), each


def test_the_check_tells_one_fruit_from_another_of_its_kind(draw):
    one, other = sorted((FOLDER / "Training" / "Orange").glob("*.jpg"))[:2]
    assert draw.same(one.read_bytes(), one.read_bytes())
    assert not draw.same(one.read_bytes(), other.read_bytes())


def test_check_passes_on_what_was_drawn_and_names_what_was_not(draw, monkeypatch, tmp_path, capsys):
    drawn = {path: (FOLDER / path).read_bytes() for path in draw.plan(1)}
    monkeypatch.setattr(draw, "jpegs", lambda paths: ((path, drawn[path]) for path in paths))

    def called(*options: str) -> tuple[int, list[str]]:
        command = ["draw.py", "--out", str(tmp_path), "--images-per-class", "1", *options]
        monkeypatch.setattr(sys, "argv", command)
        return draw.main(), capsys.readouterr().out.splitlines()

    assert called() == (0, [])
    assert len(list(tmp_path.glob("*/*/*.jpg"))) == len(drawn) == len(classes("Training"))
    assert called("--check") == (0, ["every image is as this script draws it"])

    one, two, three, *_ = [tmp_path / path for path in drawn]
    two.write_bytes(one.read_bytes())
    one.unlink()
    foreign = three.with_name("foreign_100.jpg")
    foreign.write_bytes(three.read_bytes())
    status, told = called("--check")
    assert status == 1
    assert told == [
        f"{foreign.relative_to(tmp_path)}: not drawn by this script",
        f"{one.relative_to(tmp_path)}: missing",
        f"{two.relative_to(tmp_path)}: differs from what this script draws",
    ]
