"""Runs a stream of tasks on Spark, of any length, as few overlapping jobs."""

from __future__ import annotations

import gc
import sys
import threading
import uuid
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from zipimport import zipimporter

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

    from pyspark import SparkContext
    from pyspark.sql import SparkSession

__all__ = ["run_tasks", "slots"]

T = TypeVar("T")
R = TypeVar("R")

_POLL_SECONDS = 0.25

# While the last tasks of one job run, those of the next fill the cores.
_JOBS_IN_FLIGHT = 2
# A job costs the driver a tenth of a second; enough tasks for it not to show, few enough for the
# driver to hold what they carry.
_TASKS_PER_SLOT = 1
_LEAST_TASKS = 16


def slots(spark: SparkSession) -> int:
    """Return how many tasks the session's executors run at a time (at least 1)."""
    return max(1, spark.sparkContext.defaultParallelism)


def run_tasks(
    spark: SparkSession,
    tasks: Iterable[T],
    function: Callable[[T], R],
    *,
    weight: Callable[[T], int] = lambda _: 1,
    on_done: Callable[[int], None] | None = None,
) -> Generator[R, None, None]:
    """Yield ``function(task)`` for each task, in their order.

    Tasks are taken from their iterator as they are needed: the driver holds those of two jobs, one
    task a slot each and at least 16, however many there are. When the reader ends early, and at any
    exception, Ctrl-C included, what still runs on Spark is cancelled.

    Parameters
    ----------
    spark
        The session.
    tasks
        What each Spark task gets; picklable.
    function
        Called on an executor; picklable.
    weight
        How much a task counts in the progress.
    on_done
        Told, from a thread of its own, how much weight is done.
    """
    context = spark.sparkContext
    tasks = iter(tasks)
    running: deque[_Job] = deque()
    finished = 0

    def progress() -> int:
        return finished + sum(_weight_done(context, job) for job in list(running))

    with ThreadPoolExecutor(_JOBS_IN_FLIGHT) as pool, _told(progress, on_done):

        def fill() -> None:
            # Asked anew each time: executors go on registering after the session has begun.
            size = max(_LEAST_TASKS, _TASKS_PER_SLOT * slots(spark))
            while len(running) < _JOBS_IN_FLIGHT and (chunk := list(islice(tasks, size))):
                group = f"toolkit-{uuid.uuid4().hex}"
                future = pool.submit(_run, context, group, chunk, function)
                running.append(_Job(group, sum(map(weight, chunk)), future))

        try:
            fill()
            while running:
                results = running[0].future.result()
                finished += running.popleft().weight
                fill()
                yield from results
        except BaseException:
            _cancel(context, running)
            raise


@dataclass(frozen=True)
class _Job:
    """Some of the tasks, as one Spark job."""

    group: str
    weight: int
    future: Future[list[Any]]


def _run(
    context: SparkContext, group: str, tasks: Sequence[T], function: Callable[[T], R]
) -> list[R]:
    # A group belongs to a thread: this one is ours, for this job.
    context.setJobGroup(group, group, interruptOnCancel=True)
    return context.parallelize(tasks, len(tasks)).map(_Task(function)).collect()


@dataclass(frozen=True)
class _Task(Generic[T, R]):
    """Calls the function, on an executor."""

    function: Callable[[T], R]

    def __call__(self, task: T) -> R:
        try:
            return self.function(task)
        finally:
            _spare_the_next_task()


def _spare_the_next_task() -> None:
    """Take off what PySpark does between two tasks of a worker, 120 ms of a core, in vain.

    After each it collects garbage, among all objects of all libraries: those that a worker has when
    its first task is done stay to its end, and are left out from then on. Before each it has
    Python's importers look for new modules, upon which every one that stands for an archive
    (pyspark.zip, Spark's jars) reads its directory anew, in Python. One that is not cached is not
    asked; the next import makes it again, from a directory that `zipimport` keeps.
    """
    if not gc.get_freeze_count():
        gc.collect()
        gc.freeze()
    for path, importer in list(sys.path_importer_cache.items()):
        if isinstance(importer, zipimporter):
            del sys.path_importer_cache[path]


def _weight_done(context: SparkContext, job: _Job) -> int:
    tracker = context.statusTracker()
    for number in tracker.getJobIdsForGroup(job.group):
        info = tracker.getJobInfo(number)
        for stage in info.stageIds if info else ():
            tasks = tracker.getStageInfo(stage)
            if tasks and tasks.numTasks:
                return job.weight * tasks.numCompletedTasks // tasks.numTasks
    return 0


def _cancel(context: SparkContext, jobs: Iterable[_Job]) -> None:
    """Cancel the jobs, those too that are just being submitted, and wait until they have ended."""
    groups = {job.future: job.group for job in jobs}
    while running := [future for future in groups if not future.done()]:
        for future in running:
            future.cancel()
            context.cancelJobGroup(groups[future])
        wait(running, timeout=_POLL_SECONDS)


@contextmanager
def _told(progress: Callable[[], int], on_done: Callable[[int], None] | None) -> Iterator[None]:
    """Report the progress while the block runs, and at its end."""
    if on_done is None:
        yield
        return
    done = threading.Event()

    def poll() -> None:
        most = 0
        while not done.wait(_POLL_SECONDS):
            most = max(most, progress())
            on_done(most)

    watcher = threading.Thread(target=poll, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
    on_done(progress())
