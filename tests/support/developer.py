"""A developer with credentials of all kinds, none of which may leave the machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

# Made up, in the forms of the real ones.
KEY_ID = "AKIA" + "Q7" * 8
SECRET = "wJalr/XUtn+FEMI/K7MDENG" + "x" * 17


@pytest.fixture
def ann(hostile_aws: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the home of a developer with credentials of all kinds."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("TOOLKIT_S3__ACCESS_KEY_ID", "minioadmin")
    monkeypatch.setenv("TOOLKIT_S3__SECRET_ACCESS_KEY", "minioadmin")
    home = tmp_path / "ann"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("TOOLKIT_CACHE", "/data/caches/fruits")
    return home
