"""A command is measured with all of its processes, those that end before it too."""

import os
import subprocess
import sys
import time

import pytest

from benchmarks import measure
from benchmarks.measure import Sampling, measured

QUICK = Sampling(interval_s=0.05, samples_a_weighing=1)

# A process stops at a stage until it has been sampled there: what is seen depends on no clock.
STAGES = """
import pathlib, subprocess, sys, time
folder = pathlib.Path(sys.argv[1])
def pause(): time.sleep(0.005)
def stage(name):
    (folder / f"{name}.reached").touch()
    while not (folder / f"{name}.sampled").exists(): pause()
"""
# Holds 100 MiB, then 40; ends after so much arithmetic.
CHILD = f"""{STAGES}
name = sys.argv[2]
held, more = b"x" * (40 << 20), b"x" * (60 << 20)
stage(name + "-high")
del more
while time.process_time() < 0.3: pass
stage(name + "-low")
"""
# Two such children, one after the other, and little work of its own.
PARENT = f"""{STAGES}
for name in ("one", "two"):
    subprocess.run([sys.executable, "-c", {CHILD!r}, sys.argv[1], name], check=True)
print("done")
"""


@pytest.fixture
def stages(tmp_path, monkeypatch):
    """Let processes pass a stage once they have been sampled in it; note when that was."""
    folder = tmp_path / "stages"
    folder.mkdir()
    passed = {}
    sample = measure._Watch._sample

    def sampled(watch):
        reached = [file.with_suffix(".sampled") for file in folder.glob("*.reached")]
        sample(watch)
        for file in reached:
            passed.setdefault(file.stem, time.perf_counter())
            file.touch()

    monkeypatch.setattr(measure._Watch, "_sample", sampled)
    return folder, passed


@pytest.fixture
def log(tmp_path):
    return tmp_path / "logs" / "command.log"


def test_children_are_measured_and_their_cpu_time_outlives_them(log, stages):
    folder, passed = stages
    begin = time.perf_counter()
    run = measured([sys.executable, "-c", PARENT, str(folder)], log=log, sampling=QUICK)
    wall = time.perf_counter() - begin
    assert run.output == "done\n"
    assert passed["two-low"] - passed["one-high"] < run.seconds <= wall
    assert 0.6 <= run.cpu_seconds <= run.seconds * os.cpu_count()
    # The most at one time: not the last sample, nor the sum over both children.
    assert 100 < run.peak_mib < 180


def test_executors_below_the_spark_worker_count_and_the_worker_does_not(log, stages):
    folder, passed = stages
    worker = subprocess.Popen(
        [sys.executable, "-c", f"own = b'x' * (200 << 20)\n{PARENT}", str(folder)],
        stdout=subprocess.DEVNULL,
    )
    try:
        idle = f"{STAGES}\nstage('idle')\nwhile not (folder / 'two-low.sampled').exists(): pause()"
        run = measured(
            [sys.executable, "-c", idle, str(folder)],
            log=log,
            spark_worker=worker.pid,
            sampling=QUICK,
        )
    finally:
        worker.kill()
        worker.wait()
    assert "idle" in passed
    assert run.cpu_seconds >= 0.6
    assert 100 < run.peak_mib < 200


def test_the_peak_of_a_python_worker_is_the_kernel_s_even_between_samples(log, stages):
    # As PySpark's: a daemon whose child, of the same command line, is the worker. The child ends
    # a spike of 150 MiB before anybody looks.
    daemon = f"""{STAGES}
import os
if os.fork() == 0:
    spike = b"x" * (150 << 20)
    del spike
    stage("after")
else:
    os.wait()
"""
    command = [sys.executable, "-c", daemon, str(stages[0]), "pyspark.daemon"]
    run = measured(command, log=log, sampling=QUICK)
    assert 150 < run.worker_peak_mib < 220
    assert run.worker_mib[-1] < 100
