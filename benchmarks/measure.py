"""Runs a command and measures all of its processes: time, CPU, memory."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Self

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = [
    "CommandFailed",
    "Measured",
    "Sampling",
    "high_water_mark",
    "measured",
    "wait_until_idle",
]

MIB = 1 << 20

_LONGEST_S = 3 * 3600
_LINES_SHOWN = 15


@dataclass(frozen=True)
class Sampling:
    """How often the processes are looked at.

    Parameters
    ----------
    interval_s
        Seconds between two samples: so few that a process which ends between them takes little
        unseen CPU time along.
    samples_a_weighing
        Every so many samples memory is weighed. The kernel walks all pages of a process for that,
        15 ms a GiB: too much for every sample.
    """

    interval_s: float = 0.25
    samples_a_weighing: int = 8


class CommandFailed(RuntimeError):  # noqa: N818 - it names what happened
    """A command that was to be measured did not do its work."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a command cost.

    Parameters
    ----------
    seconds
        Wall time from the start of the process to its end.
    cpu_seconds
        User and system time of all processes.
    peak_mib
        Largest sum, over all processes at one time, of their proportional set sizes: pages that
        several share are counted once.
    driver_peak_mib
        The most resident memory that the command's own process ever had, its JVM not included.
    worker_peak_mib
        The most resident memory that any one Python worker of Spark ever had, by the kernel's own
        high-water mark; 0 without such workers.
    worker_mib
        Resident memory of the largest Python worker, at every sample that found one.
    output
        What it wrote to standard output.
    """

    seconds: float
    cpu_seconds: float
    peak_mib: float
    driver_peak_mib: float
    worker_peak_mib: float
    worker_mib: tuple[float, ...]
    output: str

    def figures(self) -> dict[str, float]:
        """Return the figures that every pipeline has."""
        return {
            "seconds": round(self.seconds, 3),
            "cpu_seconds": round(self.cpu_seconds, 2),
            "peak_mib": round(self.peak_mib, 1),
            "driver_peak_mib": round(self.driver_peak_mib, 1),
            "worker_peak_mib": round(self.worker_peak_mib, 1),
        }

    def worker_parts(self, parts: int) -> list[float]:
        """Cut the workers' time into equal parts and return the median memory of each, in MiB."""
        series = self.worker_mib
        cuts = [part * len(series) // parts for part in range(parts + 1)]
        chunks = (series[begin:end] for begin, end in pairwise(cuts))
        return [round(statistics.median(chunk), 1) for chunk in chunks if chunk]


def measured(
    command: Sequence[str],
    *,
    log: Path,
    environment: Mapping[str, str] | None = None,
    spark_worker: int | None = None,
    sampling: Sampling = Sampling(),
) -> Measured:
    """Run a command to its end and measure it.

    Parameters
    ----------
    command
        Program and arguments.
    log
        Takes its standard error; its standard output goes beside it.
    environment
        Variables on top of this process'.
    spark_worker
        Process id of the standalone cluster's worker, whose executors run the command's tasks:
        they are counted, too. The worker itself is not.
    sampling
        How often the processes are looked at.

    Raises
    ------
    CommandFailed
        It ended with an error.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    output = log.with_suffix(".out")
    begin = time.perf_counter()
    with (
        log.open("wb") as stderr,
        output.open("wb") as stdout,
        subprocess.Popen(
            command,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        ) as process,
        _ended(process),
        _Watch(process.pid, spark_worker, sampling) as watch,
    ):
        status = process.wait(timeout=_LONGEST_S)
        seconds = time.perf_counter() - begin
    if status:
        last = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LINES_SHOWN:]
        raise CommandFailed(f"{' '.join(command)} ended with {status}:\n" + "\n".join(last))
    return Measured(
        seconds=seconds,
        cpu_seconds=sum(watch.cpu.values()),
        peak_mib=watch.peak / MIB,
        driver_peak_mib=watch.driver_peak / MIB,
        worker_peak_mib=watch.worker_peak / MIB,
        worker_mib=tuple(value / MIB for value in watch.worker_series),
        output=output.read_text(encoding="utf-8"),
    )


def wait_until_idle(spark_worker: int, *, within_s: float = 60) -> None:
    """Wait until the executors of earlier applications have ended.

    Parameters
    ----------
    spark_worker
        Process id of the standalone cluster's worker.
    within_s
        Seconds to wait at most.

    Raises
    ------
    CommandFailed
        They do not end: somebody else uses the cluster, and would be measured.
    """
    deadline = time.monotonic() + within_s
    while busy := [each for each in _below(spark_worker) if _alive(each)]:
        if time.monotonic() > deadline:
            raise CommandFailed(f"Another application runs on the cluster: {busy}")
        time.sleep(0.25)


@contextmanager
def _ended(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Take the command and its children along when the benchmark is interrupted."""
    try:
        yield
    except BaseException:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=10)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        raise


@dataclass
class _Watch:
    """Samples the processes of a command in a thread, until the block ends."""

    driver: int
    spark_worker: int | None
    sampling: Sampling
    # A process is told from a later one of the same number by its start. What ended keeps the CPU
    # time it was last seen with.
    cpu: dict[psutil.Process, float] = field(default_factory=dict)
    peak: int = 0
    driver_peak: int = 0
    worker_peak: int = 0
    worker_series: list[int] = field(default_factory=list)
    _samples: int = 0
    _done: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        if self._thread:
            self._thread.join()

    def _run(self) -> None:
        while not self._done.wait(self.sampling.interval_s):
            self._sample()
        self._sample()  # the driver has ended, its executors may still be there

    def _sample(self) -> None:
        processes = _with_children(self.driver)
        if self.spark_worker is not None:
            processes += _below(self.spark_worker)
        weigh = self._samples % self.sampling.samples_a_weighing == 0
        self._samples += 1
        total = 0
        workers = []
        for process in processes:
            with suppress(psutil.Error), process.oneshot():
                times = process.cpu_times()
                self.cpu[process] = times.user + times.system
                total += _proportional(process) if weigh else 0
                if _is_python_worker(process):
                    workers.append(process.memory_info().rss)
                    self.worker_peak = max(self.worker_peak, high_water_mark(process.pid))
        self.peak = max(self.peak, total)
        self.driver_peak = max(self.driver_peak, high_water_mark(self.driver))
        if workers:
            self.worker_series.append(max(workers))


def _with_children(pid: int) -> list[psutil.Process]:
    with suppress(psutil.Error):
        return [psutil.Process(pid), *_below(pid)]
    return []


def _below(pid: int) -> list[psutil.Process]:
    with suppress(psutil.Error):
        return psutil.Process(pid).children(recursive=True)
    return []


def _alive(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return process.status() != psutil.STATUS_ZOMBIE
    return False


def _proportional(process: psutil.Process) -> int:
    """Return the proportional set size in bytes; the resident one where the kernel has no other."""
    try:
        return process.memory_full_info().pss
    except (psutil.AccessDenied, AttributeError):
        return process.memory_info().rss


def _is_python_worker(process: psutil.Process) -> bool:
    """Whether it is a Python worker of Spark: the child of a daemon of the same command line."""
    parent = process.parent()
    lines = process.cmdline(), parent.cmdline() if parent else []
    return all("pyspark.daemon" in line for line in lines)


def high_water_mark(pid: int) -> int:
    """Return the most bytes that a process ever had resident (VmHWM of proc(5))."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0
