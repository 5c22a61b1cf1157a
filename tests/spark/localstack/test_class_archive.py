"""The archive of Spark's classes is what every JVM of the stack starts from."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from localstack import class_archive
from localstack.java import find_java

_ROLES = {
    "org.apache.spark.deploy.master.Master",
    "org.apache.spark.deploy.worker.Worker",
    "org.apache.spark.deploy.SparkSubmit",
    "org.apache.spark.executor.CoarseGrainedExecutorBackend",
}


def role(process: psutil.Process) -> str | None:
    return next((part for part in process.cmdline() if part in _ROLES), None)


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
