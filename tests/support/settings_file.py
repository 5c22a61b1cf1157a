"""A folder of its own for `toolkit.toml`, away from the developer's settings."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

FILE = """\
# ours
profile = "local"  # for now

[profiles.aws.s3]
# agreed with the data team
bucket = "old"  # since May
# region = "us-east-1"

# the stack of this laptop
[profiles.local.stack]
minio_port = 9100
"""


@pytest.fixture
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Work in an empty folder, with no settings and no AWS account of the developer's."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    for name in os.environ:
        if name.startswith(("AWS_", "TOOLKIT_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "aws-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "aws-credentials"))


def write(text: str) -> Path:
    file = Path("toolkit.toml")
    file.write_text(text, encoding="utf-8")
    return file
