"""The script that draws the sample images, in a process of its own."""

from __future__ import annotations

import subprocess
import sys

from tests.support import CHECKOUT

FOLDER = CHECKOUT / "sample_images"
IMAGES = sorted(FOLDER.glob("T*/*/*.jpg"))


def test_the_script_draws_what_is_committed_of_every_class(tmp_path, monkeypatch):
    command = [sys.executable, str(FOLDER / "draw.py"), "--out", str(tmp_path)]
    subprocess.run([*command, "--images-per-class", "1"], check=True)
    drawn = sorted(tmp_path.glob("*/*/*.jpg"))
    assert {path.parent.name for path in drawn} == {path.parent.name for path in IMAGES}
    monkeypatch.syspath_prepend(str(FOLDER))
    import draw

    for path in drawn:
        committed = FOLDER / path.relative_to(tmp_path)
        assert draw.same(committed.read_bytes(), path.read_bytes()), committed
