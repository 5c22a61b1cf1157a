"""Memory of the Python workers over a long run: the sample images, repeated.

    python benchmarks/worker_memory.py --images 20000

Needs a running local stack (`toolkit up`). Copies the sample images into the bucket until there are
enough, runs `toolkit run` on them, samples the resident memory of every Python worker each second,
and prints it for ten equal parts of the featurizing time. Flat: the last parts are as the middle
ones.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from contextlib import suppress
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from toolkit.cli.place import local_stack, stack_settings, storage_of
from toolkit.profiles import load_profile

if TYPE_CHECKING:
    from toolkit.storage import Location, Storage

SAMPLES = Path(__file__).parents[1] / "sample_images"
PARTS = 10
MIB = 1 << 20


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("run_options", nargs="*", help="options of `toolkit run`, after --")
    arguments = parser.parse_args()
    storage = storage_of(None)
    prefix = repeat_samples(storage, arguments.images)
    command = [sys.executable, "-m", "toolkit", "run", prefix.uri, "--fresh", "--json"]
    record, samples = watch([*command, *arguments.run_options])
    report(record, samples)


def repeat_samples(storage: Storage, count: int) -> Location:
    """Put the sample images into the bucket again and again, under other names."""
    prefix = storage.location("images", f"repeated-{count}")
    there = sum(1 for _ in storage.objects(prefix))
    if there != count:
        files = islice(cycle(sorted(SAMPLES.rglob("*.jpg"))), count)
        copies = [
            (file, prefix / file.parent.name / f"{number}_100.jpg")
            for number, file in enumerate(files)
        ]
        for _ in storage.upload_all(copies):
            pass
    return prefix


def watch(command: list[str]) -> tuple[dict, list[tuple[float, list[int]]]]:
    """Run the command; return its record and (seconds, memory of each worker in bytes)."""
    samples = []
    worker = spark_worker()
    begin = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            time.sleep(1)
            if memory := worker_memory(worker):
                samples.append((time.monotonic() - begin, memory))
        output = process.stdout.read()
    if process.returncode:
        sys.exit(process.returncode)
    return json.loads(output), samples


def spark_worker() -> psutil.Process:
    """Return the Spark worker of this checkout's stack: the ancestor of its Python workers."""
    services = local_stack().status(stack_settings(load_profile())).services
    return psutil.Process(next(each.pid for each in services if each.name == "worker"))


def worker_memory(worker: psutil.Process) -> list[int]:
    """Return the resident memory of the Python workers: the children of Spark's daemons."""
    found = []
    for process in worker.children(recursive=True):
        with suppress(psutil.Error):
            lines = process.cmdline(), process.parent().cmdline()
            if all("pyspark.daemon" in line for line in lines):
                found.append(process.memory_info().rss)
    return found


def report(record: dict, samples: list[tuple[float, list[int]]]) -> None:
    """Print images per second, and the workers' memory over the featurizing time."""
    working = [memory for _, memory in samples][: round(record["seconds"]["features"])]
    print(f"{record['counts']}, {record['seconds']}, {record['images_per_second']} images/s")
    print("| part | median MiB a worker | largest MiB |\n| --- | --- | --- |")
    for part in range(PARTS):
        chunk = working[part * len(working) // PARTS : (part + 1) * len(working) // PARTS]
        values = [value / MIB for memory in chunk for value in memory]
        if values:
            print(f"| {part + 1} | {statistics.median(values):.0f} | {max(values):.0f} |")


if __name__ == "__main__":
    main()
