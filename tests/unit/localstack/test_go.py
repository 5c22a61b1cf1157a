"""Which Go builds MinIO."""

import pytest

from localstack import go


@pytest.mark.parametrize(
    ("said", "usable"),
    [("go1.24.0", True), ("go1.26.8", True), ("go2.0", True), ("go1.23.9", False), ("", False)],
)
def test_a_machines_go_is_used_when_new_enough(tmp_path, monkeypatch, said, usable):
    program = tmp_path / "go"
    program.write_text(f"#!/bin/sh\n[ \"$GOTOOLCHAIN\" = local ] && echo '{said}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert (go.installed_go() is not None) is usable


def test_without_go_there_is_none(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert go.installed_go() is None
