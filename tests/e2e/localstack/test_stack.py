"""The local stack on the real MinIO and the real Spark."""

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import minio
import psutil
import pytest

import localstack
from localstack.errors import LocalStackError, PortInUseError, ServiceError


@pytest.fixture
def other_stack(stack_settings, tmp_path, processes_of):
    """Settings of a stack that a test starts itself; ended and checked afterwards."""
    settings = replace(stack_settings, name="other", root=tmp_path)
    yield settings
    localstack.down(settings)
    assert processes_of(settings) == []


def silently(text, seconds):
    pass


def pids(settings):
    return {each.name: each.pid for each in localstack.status(settings).services}


def client(state):
    return minio.Minio(
        endpoint=state.s3_endpoint.removeprefix("http://"),
        access_key=state.access_key_id,
        secret_key=state.secret_access_key,
        region="us-east-1",
        secure=False,
    )


def test_status_shows_every_service_and_a_live_worker(stack, stack_settings):
    status = localstack.status(stack_settings)
    assert status.running
    assert [each.name for each in status.services] == ["minio", "master", "worker"]
    assert (status.workers_alive, status.cores) == (1, stack_settings.cores)
    assert status.memory_mib == stack_settings.memory_mib
    assert all(each.pid and each.uptime_s >= 0 and each.log.exists() for each in status.services)
    assert json.loads(json.dumps(status.as_dict()))["services"][1]["url"] == stack.spark_master_url


def test_up_twice_changes_nothing(stack, stack_settings):
    before = pids(stack_settings)
    began = time.monotonic()
    said = []
    assert localstack.up(stack_settings, say=lambda *each: said.append(each)) == stack
    assert pids(stack_settings) == before
    assert said == []
    assert time.monotonic() - began < 2


def test_up_on_other_ports_keeps_the_running_ones_and_says_so(stack, stack_settings):
    said = []
    wanted = replace(stack_settings, minio_port=1234, cores=1)
    assert localstack.up(wanted, say=lambda text, _: said.append(text)) == stack
    port = stack.s3_endpoint.rpartition(":")[2]
    assert said == [
        "cores stays 2, not 1, until `toolkit down`",
        f"minio port stays {port}, not 1234, until `toolkit down`",
    ]


def test_the_bucket_is_there_and_takes_objects(stack):
    assert client(stack).bucket_exists(bucket_name=stack.bucket)


def test_credentials_are_in_one_private_file_alone(stack, stack_settings):
    secret = stack.secret_access_key
    file = stack_settings.home / "minio" / "credentials.env"
    assert file.stat().st_mode & 0o777 == 0o600
    assert secret in file.read_text()
    assert secret not in repr(stack)
    others = [each for each in stack_settings.home.rglob("*") if each.is_file() and each != file]
    for other in [*others, *Path("/proc").glob("[0-9]*/cmdline")]:
        try:
            assert secret.encode() not in other.read_bytes(), other
        except OSError:
            continue  # a process or a running job's file, gone in the meantime


def test_no_foreign_aws_variable_reaches_the_services(stack, stack_settings, processes_of):
    # The stack was started amid them (conftest.py), and runs.
    services = processes_of(stack_settings)
    assert len(services) >= 3
    for service in services:
        environment = service.environ()
        assert [name for name in environment if name.startswith("AWS_")] == []
        assert stack.secret_access_key not in environment.values()


def listening(processes):
    return {
        each.laddr
        for process in processes
        for each in process.net_connections(kind="inet")
        if each.status == psutil.CONN_LISTEN
    }


def test_everything_listens_on_loopback_alone(stack, stack_settings, processes_of):
    addresses = {each.ip for each in listening(processes_of(stack_settings))}
    assert addresses
    assert addresses <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


def test_the_services_listen_where_the_state_says_and_nowhere_fixed(
    stack, stack_settings, processes_of
):
    # Spark's REST port 6066 would make two stacks meet.
    ports = {each.port for each in listening(processes_of(stack_settings))}
    urls = (stack.s3_endpoint, stack.s3_console, stack.spark_master_url, stack.spark_master_page)
    assert {int(url.rpartition(":")[2]) for url in urls} < ports
    assert not {6066, 7077, 8080, 8081, 9000, 9001} & ports


def test_logs_show_what_a_service_said(stack, stack_settings):
    assert any("Registering worker" in line for line in localstack.logs(stack_settings, "master"))
    assert len(localstack.logs(stack_settings, "minio", lines=2)) == 2


def test_following_a_log_yields_old_lines_and_then_new_ones(stack_settings, tmp_path):
    settings = replace(stack_settings, root=tmp_path)
    log = settings.log("minio")
    log.parent.mkdir(parents=True)
    log.write_text("one\ntwo\nthr")
    lines = localstack.follow(settings, "minio", lines=2)
    assert next(lines) == "two"
    with log.open("a") as out:
        out.write("ee\nfour\n")
    assert [next(lines), next(lines)] == ["three", "four"]
    lines.close()


def test_an_unknown_service_and_one_that_never_ran_are_told_apart(stack_settings, tmp_path):
    with pytest.raises(LocalStackError, match="no service 'postgres'"):
        localstack.logs(stack_settings, "postgres")
    with pytest.raises(LocalStackError, match="has never run"):
        localstack.logs(replace(stack_settings, root=tmp_path), "minio")


def test_status_and_down_of_a_stack_that_never_ran_touch_nothing(stack_settings, tmp_path):
    settings = replace(stack_settings, root=tmp_path / "none")
    assert localstack.state(settings) is None
    assert {each.state for each in localstack.status(settings).services} == {"stopped"}
    assert localstack.down(settings) == []
    assert not settings.home.exists()


def test_a_port_in_use_stops_up_before_anything_starts(other_stack, processes_of):
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = replace(other_stack, minio_port=server.getsockname()[1])
        with pytest.raises(PortInUseError, match=f"process {os.getpid()}") as error:
            localstack.up(taken, say=silently)
    assert "--minio-port" in error.value.remedy
    assert processes_of(other_stack) == []


def test_up_that_fails_midway_ends_what_it_started(other_stack, processes_of):
    with pytest.raises(ServiceError, match="does not make the bucket 'No_Bucket'"):
        localstack.up(replace(other_stack, bucket="No_Bucket"), say=silently)
    assert processes_of(other_stack) == []
    assert {each.state for each in localstack.status(other_stack).services} == {"stopped"}


def test_up_that_is_interrupted_ends_what_it_started(other_stack, processes_of):
    call = f"""
        import localstack
        from pathlib import PosixPath
        from localstack import StackSettings
        localstack.up({other_stack!r}, say=print)
    """
    caller = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(call)], stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 30
    while not other_stack.record("master").exists():
        assert time.monotonic() < deadline
        assert caller.poll() is None
        time.sleep(0.02)
    caller.send_signal(signal.SIGINT)
    assert "KeyboardInterrupt" in caller.communicate(timeout=30)[1]
    assert processes_of(other_stack) == []
    assert list(other_stack.home.glob("run/*")) == []


@pytest.mark.slow
def test_two_ups_at_a_time_make_one_stack(other_stack, processes_of):
    call = f"""
        import localstack
        from pathlib import PosixPath
        from localstack import StackSettings
        print(localstack.up({other_stack!r}, say=lambda *each: None))
    """
    callers = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(call)], stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    states = [caller.communicate(timeout=120)[0] for caller in callers]
    assert [caller.returncode for caller in callers] == [0, 0]
    assert states[0] == states[1]
    assert len(processes_of(other_stack)) == 3


@pytest.mark.slow
def test_down_in_the_middle_of_a_job_leaves_no_process_and_keeps_the_data(
    other_stack, processes_of, tmp_path
):
    state = localstack.up(other_stack, say=silently)
    data = tmp_path / "kept.txt"
    data.write_text("kept")
    client(state).fput_object(bucket_name=state.bucket, object_name="kept.txt", file_path=str(data))
    job = f"""
        import time
        from pyspark.sql import SparkSession
        spark = SparkSession.builder.master({state.spark_master_url!r}).config(
            "spark.executor.memory", "512m").getOrCreate()
        spark.sparkContext.parallelize([0, 1], 2).foreach(lambda each: time.sleep(300))
    """
    driver = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(job)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "SPARK_LOCAL_IP": "127.0.0.1"},
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 90
        while not any(
            "pyspark.daemon" in " ".join(each.cmdline()) for each in processes_of(other_stack)
        ):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert localstack.down(other_stack) == ["Spark worker", "Spark master", "MinIO"]
        assert processes_of(other_stack) == []
    finally:
        os.killpg(driver.pid, signal.SIGKILL)
        driver.wait()
    again = localstack.up(other_stack, say=silently)
    assert (again.access_key_id, again.secret_access_key) == (
        state.access_key_id,
        state.secret_access_key,
    )
    response = client(again).get_object(bucket_name=again.bucket, object_name="kept.txt")
    try:
        assert response.read() == b"kept"
    finally:
        response.close()
        response.release_conn()
    localstack.purge(other_stack)
    assert not other_stack.home.exists()
    assert processes_of(other_stack) == []


@pytest.mark.slow
def test_a_crashed_worker_is_shown_and_mended_by_up(other_stack):
    before = localstack.up(other_stack, say=silently)
    psutil.Process(pids(other_stack)["worker"]).kill()
    time.sleep(0.2)
    assert localstack.state(other_stack) is None
    assert [each.state for each in localstack.status(other_stack).services] == [
        "running",
        "running",
        "stopped",
    ]
    minio_before = pids(other_stack)["minio"]
    after = localstack.up(other_stack, say=silently)
    assert pids(other_stack)["minio"] == minio_before
    assert after.s3_endpoint == before.s3_endpoint
    assert localstack.status(other_stack).running


@pytest.mark.slow
def test_with_an_external_s3_there_is_no_minio(other_stack):
    external = replace(other_stack, external_s3=True)
    state = localstack.up(external, say=silently)
    assert (state.s3_endpoint, state.access_key_id) == (None, None)
    assert [each.name for each in localstack.status(external).services] == ["master", "worker"]
    assert not (external.home / "minio").exists()
