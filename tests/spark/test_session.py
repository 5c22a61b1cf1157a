"""The Spark session: secrets stay off command lines, errors say their cause."""

from __future__ import annotations

import json
import os
from contextlib import suppress

import psutil
import pytest

from toolkit.errors import JobError, RequestError
from toolkit.session import _driver_environment, spark_errors, spark_session


def driver_processes() -> list[psutil.Process]:
    """Return the JVMs that sessions of this process started."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if "org.apache.spark.deploy.SparkSubmit" in process.cmdline():
                found.append(process)
    return found


def command_lines() -> list[str]:
    lines = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            lines.append(" ".join(process.cmdline()))
    return lines


def test_secret_is_on_no_command_line_and_on_no_page(spark, storage) -> None:
    _, secret = storage.settings.credentials()
    lines = command_lines()
    assert any("SparkSubmit" in line for line in lines)
    assert not [line for line in lines if secret in line]
    assert secret not in str(spark.sparkContext.getConf().getAll())


def test_driver_and_executors_are_free_of_aws_variables(spark) -> None:
    drivers = driver_processes()
    assert drivers
    for process in drivers:
        assert not [name for name in process.environ() if name.startswith("AWS_")]

    def aws_names(_: object) -> list[str]:
        import os

        return [name for name in os.environ if name.startswith("AWS_")]

    assert spark.sparkContext.parallelize([0], 1).flatMap(aws_names).collect() == []


def test_driver_listens_on_loopback_only(spark) -> None:
    addresses = {
        connection.laddr.ip
        for process in driver_processes()
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert addresses
    assert addresses <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


def test_failure_in_a_worker_is_told_in_one_line(spark, tmp_path) -> None:
    def fail(_: object) -> None:
        raise JobError("the store said no")

    with pytest.raises(JobError, match="the store said no") as failed:
        with spark_errors(tmp_path / "driver.log"):
            spark.sparkContext.parallelize([0], 1).map(fail).collect()
    assert failed.value.message == "The Spark job failed: the store said no"
    assert "driver.log" in failed.value.remedy


def test_python_workers_share_what_their_threads_have_freed(spark) -> None:
    def allocators(_: object) -> tuple[str, str | None]:
        import pyarrow as pa

        return pa.default_memory_pool().backend_name, os.environ.get("MALLOC_ARENA_MAX")

    assert spark.sparkContext.parallelize([0], 1).map(allocators).collect() == [("system", "2")]


def test_missing_jars_are_a_clear_error(profile, tmp_path) -> None:
    empty = profile.model_copy(
        update={"spark": profile.spark.model_copy(update={"jars": tmp_path})}
    )
    with pytest.raises(RequestError, match="S3A jars"):
        with spark_session(empty, app="none", log=tmp_path / "driver.log"):
            pass


def test_another_sparks_variables_do_not_reach_the_driver(profile, monkeypatch) -> None:
    monkeypatch.setenv("SPARK_HOME", "/opt/spark-2.4")
    monkeypatch.setenv("HADOOP_CONF_DIR", "/etc/hadoop")
    with _driver_environment(profile):
        assert not {"SPARK_HOME", "HADOOP_CONF_DIR"} & os.environ.keys()
        assert os.environ["SPARK_LOCAL_IP"] == "127.0.0.1"
    assert os.environ["SPARK_HOME"] == "/opt/spark-2.4"


def test_what_spark_writes_is_committed_by_the_magic_committer(spark, storage) -> None:
    target = storage.location("test-session", "written")
    spark.range(3).write.mode("overwrite").parquet(target.uri)
    assert json.loads(storage.read(target / "_SUCCESS"))["committer"] == "magic"
    assert spark.read.parquet(target.uri).count() == 3
