"""Many tasks on Spark: in order, bounded, told as they go, cancelled as a whole."""

from __future__ import annotations

import gc
import sys
import time
from contextlib import closing
from typing import TYPE_CHECKING
from zipimport import zipimporter

import pytest
from pyspark import TaskContext

from tests.support.waiting import eventually
from toolkit import jobs
from toolkit.jobs import run_tasks, slots

if TYPE_CHECKING:
    from collections.abc import Iterator


def active_jobs(spark) -> list[int]:
    return list(spark.sparkContext.statusTracker().getActiveJobsIds())


def test_results_come_in_the_order_of_the_tasks_over_several_jobs(spark, monkeypatch) -> None:
    monkeypatch.setattr(jobs, "_LEAST_TASKS", 5)
    assert list(run_tasks(spark, range(17), lambda item: item * 2)) == list(range(0, 34, 2))


def test_every_task_is_a_spark_task_of_its_own(spark) -> None:
    partitions = run_tasks(spark, range(4), lambda _: TaskContext.get().partitionId())
    assert list(partitions) == [0, 1, 2, 3]


def test_driver_takes_no_more_tasks_than_two_jobs_need(spark, monkeypatch) -> None:
    monkeypatch.setattr(jobs, "_LEAST_TASKS", 5)
    size = max(5, slots(spark))
    taken: list[int] = []

    def tasks() -> Iterator[int]:
        for item in range(20 * size):
            taken.append(item)
            yield item

    results = run_tasks(spark, tasks(), lambda item: item)
    assert next(results) == 0
    assert len(taken) <= 3 * size  # one job has been read, two are under way
    results.close()
    assert len(taken) <= 3 * size


def test_no_task_waits_for_archives_to_be_read_or_old_objects_to_be_collected(spark) -> None:
    def awaited(_: int) -> tuple[int, int]:
        importers = sys.path_importer_cache.values()
        archives = sum(isinstance(importer, zipimporter) for importer in importers)
        return archives, len(gc.get_objects())

    archives, objects = list(run_tasks(spark, range(4 * slots(spark)), awaited))[-1]
    assert archives == 0
    assert objects < 5_000  # PySpark and NumPy alone have 100,000


def test_no_tasks_are_no_job(spark) -> None:
    assert list(run_tasks(spark, [], str)) == []


def test_progress_grows_by_the_weight_of_what_is_done(spark, tmp_path) -> None:
    told = tmp_path / "some are done"

    def work(item: int) -> int:
        if item >= 3:  # the others may be done: it waits until the driver has heard of one
            eventually(told.exists, within=60)
        return item

    seen: list[int] = []

    def on_done(weight: int) -> None:
        seen.append(weight)
        if 0 < weight < 60:
            told.touch()

    list(run_tasks(spark, range(6), work, weight=lambda _: 10, on_done=on_done))
    assert seen == sorted(seen)
    assert seen[-1] == 60
    assert set(seen) & {10, 20, 30, 40, 50}  # not only at the end


def test_reader_that_stops_early_cancels_what_runs(spark, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(jobs, "_LEAST_TASKS", 2)
    nap = 60.0

    def work(item: int) -> int:
        first_job_done = (tmp_path / "1").exists()
        (tmp_path / str(item)).touch()
        # Whichever job gets the core first: only what runs after the first one is cancelled.
        time.sleep(nap if item > 1 and first_job_done else 0.1)
        return item

    with closing(run_tasks(spark, range(6), work)) as results:
        assert next(results) == 0
        eventually(lambda: active_jobs(spark), within=60)
        begin = time.monotonic()
    assert time.monotonic() - begin < nap / 2
    assert not active_jobs(spark)


def test_failing_task_reaches_the_reader_and_ends_the_rest(spark, monkeypatch) -> None:
    monkeypatch.setattr(jobs, "_LEAST_TASKS", 1)

    def work(item: int) -> float:
        return 1 / item

    with pytest.raises(Exception, match="ZeroDivisionError"):
        list(run_tasks(spark, [0, 1, 2, 3], work))
    assert not active_jobs(spark)
