"""The archive of Spark's classes is what every JVM of the stack starts from."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from localstack import class_archive, jars
from localstack.errors import BuildError
from localstack.java import Java, find_java

_ROLES = {
    "org.apache.spark.deploy.master.Master",
    "org.apache.spark.deploy.worker.Worker",
    "org.apache.spark.deploy.SparkSubmit",
    "org.apache.spark.executor.CoarseGrainedExecutorBackend",
}


def role(process: psutil.Process) -> str | None:
    return next((part for part in process.cmdline() if part in _ROLES), None)


@pytest.mark.slow
def test_every_jvm_of_the_stack_maps_the_archive(
    spark, stack, stack_settings, processes_of
) -> None:
    archive = class_archive.made_archive(
        stack_settings.cache,
        java=find_java(),
        jars=stack.jars,
        log=stack_settings.log("class-archive"),
        say=lambda *_: pytest.fail("it is there already"),
    )
    spark.sparkContext.parallelize([0], 1).count()  # now there is an executor
    mapped = {}
    for process in [*processes_of(stack_settings), *psutil.Process().children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            name = role(process)
            if name:
                mapped[name] = str(archive) in Path(f"/proc/{process.pid}/maps").read_text()
    assert mapped == dict.fromkeys(_ROLES, True)


def test_without_an_archive_there_are_no_options(stack, tmp_path) -> None:
    assert class_archive.java_options(tmp_path, java=find_java(), jars=stack.jars) == ""


def test_other_jars_have_another_archive(stack, stack_settings, tmp_path) -> None:
    (tmp_path / "other.jar").write_bytes(b"")
    options = class_archive.java_options
    assert options(stack_settings.cache, java=find_java(), jars=stack.jars)
    assert options(stack_settings.cache, java=find_java(), jars=tmp_path) == ""


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
