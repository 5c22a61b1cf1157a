"""An archive of Spark's classes, from which every JVM of the stack starts in half the time.

Without one, each reads, parses and verifies thousands of classes out of two hundred jars, for about
four seconds of a core. The archive is Java's class data sharing, see
https://docs.oracle.com/en/java/javase/17/vm/class-data-sharing.html: a small Spark run tells which
classes are loaded, then Java writes them as it holds them in memory. It is good for one Java and
one class path, so master, worker, driver and executors all have the same path. A JVM that has
another one, or finds no archive, starts as it would without.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
import time
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from localstack.errors import BuildError
from localstack.jars import spark_home
from localstack.process import inherited_environment, locked, run_owned, tail

if TYPE_CHECKING:
    from collections.abc import Callable

    from localstack.java import Java

__all__ = ["LIGHT_JVM", "class_path", "java_options", "made_archive"]

LIGHT_JVM = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
"""How the JVMs of the stack are started: they pass messages, and are not worth compiling well.

An archive is good for one garbage collector."""

_TRAINING_MEMORY_MIB = 512
_TRAINED = ("driver", "executor")


def class_path(jars: Path) -> str:
    """Return the class path of every JVM of the stack, as Spark's launcher makes it.

    Parameters
    ----------
    jars
        Folder of the S3A jars.
    """
    spark = spark_home()
    slf4j = next((spark / "jars").glob("slf4j-api-*.jar"))
    return ":".join([f"{jars}/*", f"{spark}/conf", str(slf4j), f"{spark}/jars/*"])


def java_options(cache: Path, *, java: Java, jars: Path) -> str:
    """Return the options that make a JVM use the archive; none where there is none.

    Parameters
    ----------
    cache
        Cache folder that all checkouts share.
    java
        The Java of the JVM.
    jars
        Folder of the S3A jars.
    """
    archive = _archive(cache, java=java, jars=jars)
    # A JVM on which it does not fit says nothing and goes without.
    return f"-XX:SharedArchiveFile={archive} -Xlog:cds=off" if archive.is_file() else ""


def made_archive(
    cache: Path,
    *,
    java: Java,
    jars: Path,
    log: Path,
    say: Callable[[str, float | None], None],
) -> Path:
    """Return the archive for this Java and this class path, made first if there is none.

    Parameters
    ----------
    cache
        Cache folder that all checkouts share.
    java
        The Java that the stack runs on.
    jars
        Folder of the S3A jars.
    log
        File that takes what Spark and Java say.
    say
        Takes what happens and how long it took, in seconds (None: it begins).

    Raises
    ------
    BuildError
        It cannot be made.
    """
    archive = _archive(cache, java=java, jars=jars)
    if archive.is_file():
        return archive
    with locked(cache / "classes.lock"):
        if not archive.is_file():
            began = time.monotonic()
            say("Archiving Spark's classes, once for this checkout: 150 MB, half a minute", None)
            _make(archive, java=java, jars=jars, log=log)
            say("Spark's classes are archived", time.monotonic() - began)
    return archive


def _archive(cache: Path, *, java: Java, jars: Path) -> Path:
    """Name the archive after all that it depends on."""
    files = [*sorted(jars.glob("*.jar")), *sorted((spark_home() / "jars").glob("*.jar"))]
    stats = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    release = java.home / "release"
    version = release.read_text() if release.is_file() else str(java.version)
    identity = json.dumps([class_path(jars), stats, str(java.home), version, LIGHT_JVM])
    return cache / "classes" / f"{hashlib.sha256(identity.encode()).hexdigest()[:16]}.jsa"


def _make(archive: Path, *, java: Java, jars: Path, log: Path) -> None:
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=archive.parent, prefix=".archive-") as scratch:
        environment = inherited_environment() | {
            "JAVA_HOME": str(java.home),
            "SPARK_LOCAL_IP": "127.0.0.1",
            "SPARK_LOCAL_DIRS": scratch,
            "PYSPARK_PYTHON": sys.executable,
        }
        train = [sys.executable, "-m", "localstack.class_archive", scratch, str(jars)]
        if run_owned(train, env=environment, log=log) != 0:
            raise _failed("Spark", log)
        lists = [Path(scratch, f"{who}.classes").read_text().splitlines() for who in _TRAINED]
        listed = Path(scratch, "all")
        listed.write_text("\n".join(dict.fromkeys(chain(*lists))) + "\n")
        fresh = Path(scratch, archive.name)
        dump: list[str | Path] = [
            *(java.program, "-Xshare:dump", f"-XX:SharedClassListFile={listed}"),
            *(f"-XX:SharedArchiveFile={fresh}", *LIGHT_JVM.split(), "-cp", class_path(jars)),
        ]
        if run_owned(dump, env=environment, log=log) != 0 or not fresh.is_file():
            raise _failed("Java", log)
        fresh.rename(archive)


def _failed(who: str, log: Path) -> BuildError:
    return BuildError(
        f"{who} cannot archive Spark's classes:\n" + "\n".join(tail(log, lines=5)),
        remedy=f"All that it said is in {log}. The stack runs without, but starts more slowly.",
    )


def _train(folder: Path, jars: Path) -> None:
    """Do a little of what runs do, while every JVM writes down the classes that it loads."""
    from pyspark.sql import SparkSession

    def options(name: str) -> str:
        return f"{LIGHT_JVM} -XX:DumpLoadedClassList={folder / name}.classes"

    session = (
        SparkSession.builder.master(f"local-cluster[1,1,{_TRAINING_MEMORY_MIB}]")
        .config("spark.driver.extraJavaOptions", options("driver"))
        .config("spark.executor.extraJavaOptions", options("executor"))
        .config("spark.driver.extraClassPath", f"{jars}/*")
        .config("spark.executor.extraClassPath", f"{jars}/*")
        .config("spark.executor.memory", f"{_TRAINING_MEMORY_MIB}m")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .getOrCreate()
    )
    context = session.sparkContext
    numbers = context.broadcast(list(range(4)))
    pairs = context.parallelize(numbers.value, 2).map(lambda number: (number % 2, number))
    pairs.groupByKey(2).collect()
    table = str(folder / "table")
    rows = session.range(8).mapInArrow(lambda batches: batches, "id bigint")
    rows.write.parquet(table)
    session.read.parquet(table).groupBy("id").count().toArrow()
    session.stop()


if __name__ == "__main__":
    os.environ.setdefault("PYSPARK_DRIVER_PYTHON", sys.executable)
    _train(*map(Path, sys.argv[1:]))
