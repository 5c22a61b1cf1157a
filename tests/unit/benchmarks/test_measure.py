"""A command that fails, is interrupted or finds the cluster busy; and what is made of samples."""

import os
import signal
import subprocess
import sys

import psutil
import pytest

from benchmarks.measure import CommandFailed, Measured, measured, wait_until_idle
from localstack.process import birth_of
from tests.support.waiting import eventually


@pytest.fixture
def log(tmp_path):
    return tmp_path / "logs" / "command.log"


def test_a_command_that_fails_is_told_with_its_last_words(log):
    with pytest.raises(CommandFailed, match="ended with 3:\nno more"):
        measured(
            [sys.executable, "-c", "import sys; sys.stderr.write('no more'); exit(3)"], log=log
        )


def test_an_interrupted_measurement_takes_the_command_and_its_children_along(log, tmp_path):
    child = tmp_path / "child"
    command = ["sh", "-c", f"sleep 60 & echo $! > {child}; wait"]
    call = (
        "from pathlib import Path\n"
        "from benchmarks.measure import measured\n"
        f"measured({command!r}, log=Path({str(log)!r}))\n"
    )
    caller = subprocess.Popen([sys.executable, "-c", call], stderr=subprocess.DEVNULL)
    eventually(lambda: child.exists() and child.read_text().strip())
    pid = int(child.read_text())
    caller.send_signal(signal.SIGINT)
    assert caller.wait(timeout=60) != 0
    eventually(lambda: birth_of(pid) is None)


def test_idle_is_a_worker_without_living_children():
    parent = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        wait_until_idle(parent.pid)
    finally:
        parent.kill()
        parent.wait()


def test_a_busy_worker_is_not_measured_on():
    command = "import subprocess; subprocess.run(['sleep', '60'])"
    parent = subprocess.Popen([sys.executable, "-c", command], start_new_session=True)
    try:
        eventually(lambda: psutil.Process(parent.pid).children())
        with pytest.raises(CommandFailed, match="Another application"):
            wait_until_idle(parent.pid, within_s=0)
    finally:
        os.killpg(parent.pid, signal.SIGKILL)
        parent.wait()


def test_the_workers_time_is_cut_into_equal_parts():
    run = Measured(
        seconds=1,
        cpu_seconds=1,
        peak_mib=1,
        driver_peak_mib=1,
        worker_peak_mib=9,
        worker_mib=(1.0, 3.0, 5.0, 5.0, 9.0, 7.0),
        output="",
    )
    assert run.worker_parts(3) == [2.0, 5.0, 8.0]
    assert run.worker_parts(10) == [1.0, 3.0, 5.0, 5.0, 9.0, 7.0]
