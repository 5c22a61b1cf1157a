"""Profile -> SparkSession, and what its errors mean."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import threading
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from toolkit.errors import JobError, RequestError
from toolkit.storage import Storage, aws_variables_hidden

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from py4j.java_gateway import JavaGateway
    from pyspark import SparkConf, SparkContext
    from pyspark.sql import SparkSession

    from toolkit.profiles import Profile

__all__ = ["FOREIGN", "LIGHT_JVM", "LOG4J", "spark_errors", "spark_session"]

_PATIENCE_SECONDS = 30

FOREIGN = ("SPARK_", "PYSPARK_", "HADOOP_", "YARN_")
"""How the variables of another Spark begin."""

# The JVMs of a run plan and pass messages; the work is in Python and OpenVINO. The light compiler
# and the simple collector leave the cores to them.
LIGHT_JVM = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
"""Options of JVMs that leave the cores to others."""

# Quiet on the terminal: the log file has it all. Python's own errors reach the user through the
# exception, so the JVM's copy of them is not needed.
LOG4J = """\
rootLogger.level = warn
rootLogger.appenderRef.file.ref = file
appender.file.type = File
appender.file.name = file
appender.file.fileName = {log}
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = %d{{yyyy-MM-dd HH:mm:ss}} %p %c{{1}}: %m%n%ex
"""
"""What a JVM says, as Log4j reads it: ``log`` is the file."""


@contextmanager
def spark_session(profile: Profile, *, app: str, log: Path) -> Iterator[SparkSession]:
    """Start a session on the profile's Spark and stop it at the end.

    Parameters
    ----------
    profile
        Where: master, jars, memory and the object store.
    app
        Name of the application on Spark's pages.
    log
        File that takes everything the driver's JVM has to say.

    Raises
    ------
    RequestError
        The jars that S3A needs are not there.
    JobError
        Spark does not start.
    """
    from pyspark import SparkContext
    from pyspark.java_gateway import launch_gateway
    from pyspark.sql import SparkSession

    conf = _configuration(profile, app=app, log=log)
    with ExitStack() as exits:
        try:
            with log.open("ab") as sink, _driver_environment(profile):
                gateway = launch_gateway(  # type: ignore[no-untyped-call]
                    conf, popen_kwargs={"stdout": sink, "stderr": sink}
                )
                exits.callback(_end_gateway, gateway)
                context = SparkContext(conf=conf, gateway=gateway)
        except Exception as exc:  # py4j and PySpark raise unrelated errors
            raise JobError(
                f"Spark does not start on {profile.spark.master}: {exc}",
                remedy=f"See {log} and `toolkit status`; `toolkit doctor` checks Java.",
            ) from exc
        exits.callback(_stop, context)
        _configure_hadoop(context, Storage(profile.s3))
        yield SparkSession(context)


@contextmanager
def spark_errors(log: Path) -> Iterator[None]:
    """Turn Spark's errors into the project's: the cause in one line, the rest is in the log."""
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException

    try:
        yield
    except (PySparkException, Py4JError) as exc:
        raise JobError(
            f"The Spark job failed: {_cause(str(exc))}",
            remedy=f"Spark's own messages are in {log} and in `toolkit logs worker`.",
        ) from exc


def _cause(text: str) -> str:
    """Find what a Python worker raised in the text of a Spark error, else its first line."""
    raised = re.findall(
        r"^[ \t]*([A-Za-z_][\w.]*(?:Error|Exception|NotFound)): (.+)$", text, re.MULTILINE
    )
    workers_own = [f"{message}" for name, message in raised if name.startswith("toolkit.")]
    if workers_own:
        return workers_own[-1]
    python = [f"{name}: {message}" for name, message in raised if "java" not in name]
    return python[-1] if python else text.strip().partition("\n")[0]


def _configuration(profile: Profile, *, app: str, log: Path) -> SparkConf:
    from pyspark import SparkConf

    log.parent.mkdir(parents=True, exist_ok=True)
    log4j = log.with_suffix(".log4j2.properties")
    log4j.write_text(LOG4J.format(log=log), encoding="utf-8")
    settings = {
        "spark.master": profile.spark.master,
        "spark.app.name": app,
        "spark.driver.memory": profile.spark.driver_memory,
        "spark.executor.memory": profile.spark.executor_memory,
        "spark.driver.extraJavaOptions": (
            f"{LIGHT_JVM} -Dlog4j2.configurationFile={log4j.absolute().as_uri()} "
            f"{profile.spark.driver_java_options}"
        ),
        "spark.executor.extraJavaOptions": f"{LIGHT_JVM} {profile.spark.executor_java_options}",
        "spark.ui.showConsoleProgress": "false",
        # Any use of the catalog makes this folder; its default is the current one.
        "spark.sql.warehouse.dir": (log.parent / "spark-warehouse").absolute().as_uri(),
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        "spark.sql.parquet.compression.codec": "zstd",
        "spark.sql.sources.commitProtocolClass": (
            "org.apache.spark.internal.io.cloud.PathOutputCommitProtocol"
        ),
        "spark.sql.parquet.output.committer.class": (
            "org.apache.spark.internal.io.cloud.BindingParquetOutputCommitter"
        ),
        "spark.hadoop.mapreduce.outputcommitter.factory.scheme.s3a": (
            "org.apache.hadoop.fs.s3a.commit.S3ACommitterFactory"
        ),
        # Over TCP each task of a Python worker begins with 40 ms of waiting: the JVM sends its
        # input in small pieces, of which the kernel holds the second back until the first is
        # acknowledged.
        "spark.python.unix.domain.socket.enabled": "true",
        # What a thread of a Python worker has freed, another can use: Arrow's own allocator keeps
        # 25 MiB and more a thread, glibc an arena a thread that grows for minutes.
        "spark.executorEnv.ARROW_DEFAULT_MEMORY_POOL": "system",
        "spark.executorEnv.MALLOC_ARENA_MAX": "2",
        "spark.pyspark.python": sys.executable,
        "spark.pyspark.driver.python": sys.executable,
    }
    if profile.spark.cores is not None:
        settings["spark.cores.max"] = str(profile.spark.cores)
    if profile.spark.jars is not None:
        if not any(profile.spark.jars.glob("hadoop-aws-*.jar")):
            raise RequestError(
                f"{profile.spark.jars} does not hold the S3A jars.",
                remedy="Fetch them with `bash localstack/bootstrap.sh setup`.",
            )
        settings["spark.driver.extraClassPath"] = f"{profile.spark.jars}/*"
        settings["spark.executor.extraClassPath"] = f"{profile.spark.jars}/*"
    if _is_local(profile.spark.master):
        settings["spark.driver.host"] = "127.0.0.1"
        settings["spark.driver.bindAddress"] = "127.0.0.1"
    return SparkConf(loadDefaults=False).setAll(list(settings.items()))


def _configure_hadoop(context: SparkContext, storage: Storage) -> None:
    # PySpark has no public way that keeps the secret off spark-submit's command line.
    hadoop = context._jsc.hadoopConfiguration()  # noqa: SLF001
    for name, value in storage.hadoop_configuration().items():
        hadoop.set(name, value)


@contextmanager
def _driver_environment(profile: Profile) -> Iterator[None]:
    """Set up the environment that the driver's JVM inherits.

    Another Spark's or Hadoop's variables must not reach it: the driver is the installed pyspark.
    """
    own = {"PYSPARK_PYTHON": sys.executable}
    if profile.spark.properties is not None:
        file = shlex.quote(str(profile.spark.properties))
        own["PYSPARK_SUBMIT_ARGS"] = f"--properties-file {file} pyspark-shell"
    if _is_local(profile.spark.master):
        own["SPARK_LOCAL_IP"] = "127.0.0.1"
    if profile.spark.java_home is not None:
        own["JAVA_HOME"] = str(profile.spark.java_home)
    foreign = {name for name in os.environ if name.startswith(FOREIGN)}
    before = {name: os.environ.get(name) for name in foreign | own.keys()}
    for name in foreign:
        del os.environ[name]
    os.environ.update(own)
    try:
        with nullcontext() if profile.s3.is_aws else aws_variables_hidden():
            yield
    finally:
        # Name by name: another thread may read the others meanwhile.
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _is_local(master: str) -> bool:
    return master.startswith("local") or urlsplit(master).hostname in {"127.0.0.1", "localhost"}


def _stop(context: SparkContext) -> None:
    """Stop the application, without the second at most that `SparkContext.stop` waits in vain.

    The server of its accumulators looks every second whether it shall end, or when the JVM sends
    something: here an update of none.
    """
    from py4j.protocol import Py4JError

    # There is no public way. Without these names, or when it has stopped before, it may wait.
    server = getattr(context, "_accumulatorServer", None)
    updates = getattr(context, "_javaAccumulator", None)
    try:
        if server is not None and updates is not None:
            server.server_shutdown = True
            ending = threading.Thread(target=server.shutdown)
            ending.start()
            with suppress(Py4JError):  # the server has ended already, or never had a connection
                updates.merge(updates)
            ending.join()
            context._accumulatorServer = None  # type: ignore[assignment] # noqa: SLF001
    finally:
        context.stop()


def _end_gateway(gateway: JavaGateway) -> None:
    """End the driver's JVM, so that the next session in this process starts afresh."""
    from pyspark import SparkContext

    # As pyspark.testing does: there is no public way.
    SparkContext._gateway = None  # noqa: SLF001
    SparkContext._jvm = None  # noqa: SLF001
    gateway.shutdown()
    gateway.proc.stdin.close()  # the JVM ends when its standard input does
    try:
        gateway.proc.wait(timeout=_PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        gateway.proc.kill()
        gateway.proc.wait()
