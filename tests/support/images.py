"""Sample images, good and bad."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support import CHECKOUT

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def bad_files() -> dict[str, bytes]:
    """Return names and contents of files that are no readable images."""
    return {
        "truncated.jpg": b"\xff\xd8\xff\xe0\x00\x10JFIF\x00",
        "zero bytes.jpg": b"",
        "text.jpg": b"Hello",
    }


@pytest.fixture(scope="session")
def mixed_folder(
    tmp_path_factory: pytest.TempPathFactory,
    sample_files: list[Path],
    bad_files: dict[str, bytes],
) -> Path:
    """Return a folder of two dozen sample images of six classes, and three bad files."""
    root = tmp_path_factory.mktemp("images") / "mixed fruits"
    for file in sample_files:
        target = root / file.parent.name / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
    (root / "Bad").mkdir()
    for name, content in bad_files.items():
        (root / "Bad" / name).write_bytes(content)
    return root


@pytest.fixture(scope="session")
def sample_files() -> list[Path]:
    """Return four sample images of each of six classes."""
    folders = sorted((CHECKOUT / "sample_images" / "Training").iterdir())
    return [file for folder in folders[:6] for file in sorted(folder.glob("*.jpg"))[:4]]
