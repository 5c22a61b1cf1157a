"""Making the archive of Spark's classes, by a process that starts Spark."""

from __future__ import annotations

import pytest

from localstack import class_archive, jars
from localstack.errors import BuildError
from localstack.java import Java


def test_failure_leaves_nothing_and_says_where_to_look(tmp_path) -> None:
    program = tmp_path / "java" / "bin" / "java"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\necho no heap for you\nexit 1\n")
    program.chmod(0o755)
    log = tmp_path / "log"
    with pytest.raises(BuildError, match="cannot archive") as failed:
        class_archive.made_archive(
            tmp_path,
            java=Java(tmp_path / "java", 17),
            jars=jars.folder(tmp_path),
            log=log,
            say=lambda *_: None,
        )
    assert str(log) in failed.value.remedy
    assert list((tmp_path / "classes").iterdir()) == []
