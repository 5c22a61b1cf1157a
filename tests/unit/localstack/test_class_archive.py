"""Which archive of Spark's classes a JVM is given."""

from __future__ import annotations

import pytest

from localstack import class_archive
from localstack.java import Java


@pytest.fixture
def jars(tmp_path):
    folder = tmp_path / "jars"
    folder.mkdir()
    (folder / "a.jar").write_bytes(b"")
    return folder


def test_the_archive_of_the_same_java_and_jars_is_taken_and_no_other(tmp_path, jars) -> None:
    java = Java(tmp_path / "java", 17)

    def options(java: Java) -> str:
        return class_archive.java_options(tmp_path, java=java, jars=jars)

    assert options(java) == ""  # there is none yet
    archive = class_archive._archive(tmp_path, java=java, jars=jars)
    archive.parent.mkdir()
    archive.write_bytes(b"")
    assert f"-XX:SharedArchiveFile={archive} " in options(java)
    assert options(Java(tmp_path / "java", 21)) == ""
    assert options(Java(tmp_path / "other", 17)) == ""
    (jars / "b.jar").write_bytes(b"")
    assert options(java) == ""


def test_an_archive_that_is_there_is_not_made_again(tmp_path, jars) -> None:
    java = Java(tmp_path / "java", 17)
    archive = class_archive._archive(tmp_path, java=java, jars=jars)
    archive.parent.mkdir()
    archive.write_bytes(b"")
    made = class_archive.made_archive(
        tmp_path,
        java=java,
        jars=jars,
        log=tmp_path / "log",
        say=lambda *_: pytest.fail("it is there already"),
    )
    assert made == archive
