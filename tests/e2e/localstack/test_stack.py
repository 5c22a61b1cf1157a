"""A stack of the test's own, from the first start to the last trace."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from contextlib import contextmanager
from dataclasses import replace

import minio
import psutil
import pytest

import localstack
from localstack.errors import ServiceError
from tests.support.waiting import eventually


@pytest.fixture
def other_stack(stack_settings, tmp_path, processes_of):
    """Return settings of a stack that the test starts; it is ended and checked afterwards."""
    settings = replace(stack_settings, name="other", root=tmp_path, cores=2, memory_mib=1024)
    yield settings
    localstack.down(settings)
    assert processes_of(settings) == []


def silently(text, seconds):
    pass


def pids(settings):
    return {each.name: each.pid for each in localstack.status(settings).services}


def states(settings):
    return [each.state for each in localstack.status(settings).services]


def client(state):
    return minio.Minio(
        endpoint=state.s3_endpoint.removeprefix("http://"),
        access_key=state.access_key_id,
        secret_key=state.secret_access_key,
        region="us-east-1",
        secure=False,
    )


def up_in_a_process(settings):
    call = f"""
        import localstack
        from pathlib import PosixPath
        from localstack import StackSettings
        print(localstack.up({settings!r}, say=lambda *each: None))
    """
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(call)], stdout=subprocess.PIPE, text=True
    )


@contextmanager
def job_that_does_not_end(settings, folder):
    """Run two tasks that sleep, in a driver of its own; begin the block when both do."""
    job = f"""
        import time
        from pathlib import Path, PosixPath
        import localstack
        from localstack import StackSettings
        from toolkit.cli.place import _on_stack
        from toolkit.profiles import load_profile
        from toolkit.session import spark_session

        def task(number):
            Path({str(folder)!r}, f"task-{{number}}").touch()
            time.sleep(300)

        profile = _on_stack(load_profile("local"), localstack.state({settings!r}))
        with spark_session(profile, app="job", log=Path({str(folder / "driver.log")!r})) as spark:
            spark.sparkContext.parallelize([0, 1], 2).foreach(task)
    """
    driver = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(job)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        eventually(lambda: len(list(folder.glob("task-*"))) == 2)
        yield
    finally:
        os.killpg(driver.pid, signal.SIGKILL)
        driver.wait()


def test_a_stack_from_the_first_start_to_the_last_trace(
    other_stack, processes_of, stack, stack_settings, tmp_path
):
    """One stack for many questions: a start takes as long as all of them."""
    neighbours = pids(stack_settings)

    # With an S3 of the user's own there is no MinIO.
    external = replace(other_stack, external_s3=True)
    state = localstack.up(external, say=silently)
    assert (state.s3_endpoint, state.access_key_id) == (None, None)
    assert [each.name for each in localstack.status(external).services] == ["master", "worker"]
    assert not (external.home / "minio").exists()

    # MinIO joins what runs.
    spark_before = pids(external)
    state = localstack.up(other_stack, say=silently)
    assert {name: pids(other_stack)[name] for name in spark_before} == spark_before
    assert client(state).bucket_exists(bucket_name=state.bucket)

    # `down` in the middle of a job leaves no process and keeps the data.
    data = tmp_path / "kept.txt"
    data.write_text("kept")
    client(state).fput_object(bucket_name=state.bucket, object_name="kept.txt", file_path=str(data))
    with job_that_does_not_end(other_stack, tmp_path):
        assert localstack.down(other_stack) == ["Spark worker", "Spark master", "MinIO"]
        assert processes_of(other_stack) == []
    assert localstack.down(other_stack) == []
    assert states(other_stack) == ["stopped"] * 3

    # Two `up`s at a time make one stack, with the data and credentials of before.
    callers = [up_in_a_process(other_stack) for _ in range(2)]
    said = [caller.communicate(timeout=240)[0] for caller in callers]
    assert [caller.returncode for caller in callers] == [0, 0]
    assert said[0] == said[1]
    assert len(processes_of(other_stack)) == 3
    again = localstack.state(other_stack)
    assert f"{again}\n" == said[0]
    assert (again.access_key_id, again.secret_access_key) == (
        state.access_key_id,
        state.secret_access_key,
    )
    client(again).fget_object(
        bucket_name=again.bucket, object_name="kept.txt", file_path=str(tmp_path / "back.txt")
    )
    assert (tmp_path / "back.txt").read_text() == "kept"

    # A crashed worker is shown, and mended by `up`.
    before = pids(other_stack)
    psutil.Process(before["worker"]).kill()
    eventually(lambda: states(other_stack) == ["running", "running", "stopped"])
    assert localstack.state(other_stack) is None
    after = localstack.up(other_stack, say=silently)
    assert pids(other_stack)["minio"] == before["minio"]
    assert after.s3_endpoint == again.s3_endpoint
    eventually(lambda: localstack.status(other_stack).running)

    # Nothing of it is left, and nothing else was touched.
    localstack.purge(other_stack)
    assert not other_stack.home.exists()
    assert processes_of(other_stack) == []
    assert pids(stack_settings) == neighbours


def test_up_that_fails_midway_ends_what_it_started(other_stack, processes_of):
    with pytest.raises(ServiceError, match="does not make the bucket 'No_Bucket'"):
        localstack.up(replace(other_stack, bucket="No_Bucket"), say=silently)
    assert processes_of(other_stack) == []
    assert states(other_stack) == ["stopped"] * 3


def test_up_that_is_interrupted_ends_what_it_started(other_stack, processes_of):
    running = []

    def interrupt(text, seconds):
        if text.startswith("MinIO answers"):
            running.extend(processes_of(other_stack))
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        localstack.up(other_stack, say=interrupt)
    assert len(running) == 2  # MinIO and the master
    assert processes_of(other_stack) == []
    assert list(other_stack.home.glob("run/*")) == []
