"""A command is measured with all of its processes, those that end before it too."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from benchmarks.measure import CommandFailed, Measured, measured, wait_until_idle
from localstack.process import birth_of

# Ends after a second of arithmetic, holding 100 MiB, and 200 MiB for a moment at its start.
BUSY = """
import time
more = b"x" * (100 << 20)
held = b"x" * (100 << 20)
time.sleep(0.6)
del more
while time.process_time() < 1: pass
"""
# Two such children, one after the other, and little work of its own.
PARENT = f"""
import subprocess, sys, time
for _ in range(2):
    subprocess.run([sys.executable, "-c", {BUSY!r}], check=True)
time.sleep(0.5)
print("done")
"""


def wait_until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


@pytest.fixture(autouse=True)
def weighed_at_every_sample(monkeypatch):
    monkeypatch.setattr("benchmarks.measure._SAMPLES_A_WEIGHING", 1)


@pytest.fixture
def log(tmp_path):
    return tmp_path / "logs" / "command.log"


@pytest.mark.slow
def test_children_are_measured_and_their_cpu_time_outlives_them(log):
    begin = time.perf_counter()
    run = measured([sys.executable, "-c", PARENT], log=log)
    wall = time.perf_counter() - begin
    assert run.output == "done\n"
    assert wall - 1 < run.seconds <= wall
    # What a child did since it was last seen is lost: a quarter of a second each.
    assert 1.4 <= run.cpu_seconds <= run.seconds * os.cpu_count()
    assert 200 < run.peak_mib < 330


@pytest.mark.slow
def test_executors_below_the_spark_worker_count_and_the_worker_does_not(log):
    script = f"own = b'x' * (400 << 20)\n{PARENT}"
    worker = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.DEVNULL)
    try:
        idle = [sys.executable, "-c", "import time; time.sleep(2.5)"]
        run = measured(idle, log=log, spark_worker=worker.pid)
    finally:
        worker.kill()
        worker.wait()
    assert run.cpu_seconds > 0.1  # of a busy second, on a machine that may be busy itself
    assert 200 < run.peak_mib < 330


@pytest.mark.slow
def test_the_peak_of_a_python_worker_is_the_kernel_s_even_between_samples(log):
    # As PySpark's: a daemon whose child, of the same command line, is the worker. The child ends
    # a spike of 150 MiB before anybody looks.
    daemon = """
import os, time
if os.fork() == 0:
    spike = b"x" * (150 << 20)
    del spike
    time.sleep(1.5)
else:
    os.wait()
"""
    command = [sys.executable, "-c", daemon, "pyspark.daemon"]
    run = measured(command, log=log)
    assert 150 < run.worker_peak_mib < 220
    assert run.worker_mib[-1] < 100


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
    wait_until(lambda: child.exists() and child.read_text().strip())
    pid = int(child.read_text())
    caller.send_signal(signal.SIGINT)
    assert caller.wait(timeout=20) != 0
    wait_until(lambda: birth_of(pid) is None)


def test_idle_is_a_worker_without_living_children():
    parent = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        wait_until_idle(parent.pid)
    finally:
        parent.kill()
        parent.wait()


def test_a_busy_worker_is_not_measured_on(monkeypatch):
    monkeypatch.setattr("benchmarks.measure._PATIENCE_S", 0.5)
    command = "import subprocess; subprocess.run(['sleep', '60'])"
    parent = subprocess.Popen([sys.executable, "-c", command], start_new_session=True)
    try:
        wait_until(lambda: psutil.Process(parent.pid).children())
        with pytest.raises(CommandFailed, match="Another application"):
            wait_until_idle(parent.pid)
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
