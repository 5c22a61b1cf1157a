"""Which Java is taken, and what is said when there is none."""

import pytest

from localstack import java
from localstack.errors import MissingProgramError


@pytest.fixture
def no_java(tmp_path, monkeypatch):
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(java, "_SYSTEM_JVMS", tmp_path / "jvm")


def install(home, said):
    program = home / "bin" / "java"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\necho '{said}' >&2\n")
    program.chmod(0o755)
    return home


def test_missing_java_is_reported_with_the_command_that_installs_it(no_java):
    with pytest.raises(MissingProgramError, match="this machine has none") as error:
        java.find_java()
    assert error.value.remedy == "sudo apt-get install -y openjdk-17-jre-headless"


def test_an_old_java_is_named(no_java, tmp_path, monkeypatch):
    monkeypatch.setenv("JAVA_HOME", str(install(tmp_path / "old", 'openjdk version "1.8.0_412"')))
    with pytest.raises(MissingProgramError, match=r"Java 8 in .*old"):
        java.find_java()


def test_a_new_java_beside_an_old_one_is_found(no_java, tmp_path, monkeypatch):
    monkeypatch.setenv("JAVA_HOME", str(install(tmp_path / "old", 'openjdk version "11.0.2"')))
    new = install(tmp_path / "jvm" / "java-21", 'openjdk version "21.0.1" 2023-10-17')
    assert java.find_java() == java.Java(new, 21)
