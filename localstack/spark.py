"""Spark standalone on this machine: a Master and a Worker out of the installed pyspark."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from localstack import class_archive, jars, probe, process
from localstack.class_archive import LIGHT_JVM
from localstack.jars import spark_home

if TYPE_CHECKING:
    from localstack.home import StackSettings
    from localstack.java import Java

__all__ = [
    "Share",
    "Worker",
    "executor_java_options",
    "share_of_machine",
    "start_master",
    "start_worker",
    "workers",
]

_CONF = Path(__file__).with_name("spark-conf")

_LEAST_SYSTEM_MIB = 1024  # of a small machine; a fifth of a larger one
_PYTHON_MIB_PER_CORE = 768  # a worker process with OpenVINO, a network and a batch of images
_LEAST_EXECUTOR_MIB = 1024
_MOST_EXECUTOR_MIB = 4096  # images never enter the JVM: a larger heap would lie idle


@dataclass(frozen=True)
class Share:
    """What of this machine the Spark worker offers.

    Parameters
    ----------
    cores
        Tasks at a time.
    memory_mib
        Heap of its executors, in MiB.
    """

    cores: int
    memory_mib: int


@dataclass(frozen=True)
class Worker:
    """A worker as the master sees it."""

    alive: bool
    cores: int
    memory_mib: int


def share_of_machine(*, cores: int, total_mib: int) -> Share:
    """Size the Spark worker to a machine.

    A fifth of the memory, at least 1 GiB, is left to the system, MinIO and the driver, and 768 MiB
    a core to the Python workers, where the images live; executors get the rest within [1, 4] GiB.

    Parameters
    ----------
    cores
        Cores that Spark may use.
    total_mib
        Memory of the machine in MiB.
    """
    left = total_mib - max(_LEAST_SYSTEM_MIB, total_mib // 5) - cores * _PYTHON_MIB_PER_CORE
    return Share(cores, min(max(left, _LEAST_EXECUTOR_MIB), _MOST_EXECUTOR_MIB))


def start_master(*, settings: StackSettings, java: Java, ports: dict[str, int]) -> process.Daemon:
    """Start the Master on loopback; it may not answer yet.

    Parameters
    ----------
    settings
        Where its record and log go.
    java
        The Java to run on.
    ports
        ``spark_port`` and ``spark_ui_port``.
    """
    return process.start(
        [
            *(spark_home() / "bin" / "spark-class", "org.apache.spark.deploy.master.Master"),
            *("--properties-file", _CONF / "spark-defaults.conf"),
            *("--host", "127.0.0.1", "--port", str(ports["spark_port"])),
            *("--webui-port", str(ports["spark_ui_port"])),
        ],
        env=_environment(settings, java),
        home=settings.home,
        record=settings.record("master"),
        log=settings.log("master"),
        ports=ports,
    )


def start_worker(
    *, settings: StackSettings, java: Java, ports: dict[str, int], master_port: int
) -> process.Daemon:
    """Start the Worker on loopback; it may not be registered yet.

    The master must accept connections already: a worker that finds nobody waits 5 to 15 s.

    Parameters
    ----------
    settings
        Its size, and where its work folder, record and log go.
    java
        The Java to run on.
    ports
        ``worker_ui_port``.
    master_port
        Port of the running master.
    """
    share = _share(settings)
    work = settings.home / "spark" / "work"
    work.mkdir(parents=True, exist_ok=True)
    return process.start(
        [
            *(spark_home() / "bin" / "spark-class", "org.apache.spark.deploy.worker.Worker"),
            *("--properties-file", _CONF / "spark-defaults.conf"),
            *("--host", "127.0.0.1", "--webui-port", str(ports["worker_ui_port"])),
            *("--cores", str(share.cores), "--memory", f"{share.memory_mib}m"),
            *("--work-dir", work, f"spark://127.0.0.1:{master_port}"),
        ],
        env=_environment(settings, java),
        home=settings.home,
        record=settings.record("worker"),
        log=settings.log("worker"),
        ports=ports,
    )


def _share(settings: StackSettings) -> Share:
    import psutil

    share = share_of_machine(
        cores=settings.cores or len(os.sched_getaffinity(0)),
        total_mib=psutil.virtual_memory().total >> 20,
    )
    return Share(share.cores, settings.memory_mib or share.memory_mib)


def executor_java_options(settings: StackSettings, java: Java) -> str:
    """Return the options of the JVMs of executors.

    Parameters
    ----------
    settings
        Which stack.
    java
        The Java that it runs on.
    """
    archived = class_archive.java_options(
        settings.cache, java=java, jars=jars.folder(settings.cache)
    )
    # In a folder of the class path it would keep the archive from being used.
    return f"-Dlog4j2.configurationFile={(_CONF / 'log4j2.properties').as_uri()} {archived}".strip()


def _environment(settings: StackSettings, java: Java) -> dict[str, str]:
    # Executors and their Python workers inherit this from the Worker.
    return process.inherited_environment() | {
        "JAVA_HOME": str(java.home),
        "SPARK_HOME": str(spark_home()),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_PUBLIC_DNS": "localhost",  # the host in the pages' links, as Windows knows it too
        "SPARK_LOCAL_DIRS": str(settings.home / "spark" / "scratch"),
        "SPARK_DAEMON_MEMORY": "512m",
        "SPARK_DAEMON_CLASSPATH": f"{jars.folder(settings.cache)}/*",
        "SPARK_DAEMON_JAVA_OPTS": f"{LIGHT_JVM} {executor_java_options(settings, java)}",
        "SPARK_LAUNCHER_OPTS": LIGHT_JVM,
        "PYSPARK_PYTHON": sys.executable,
    }


def workers(ui_port: int) -> list[Worker] | None:
    """Return the workers that a master knows, dead ones too.

    Parameters
    ----------
    ui_port
        Port of the master's page.

    Returns
    -------
    list of Worker or None
        None when no master answers.
    """
    body = probe.get(ui_port, "/json/")
    try:
        known = json.loads(body or b"")["workers"]
        return [Worker(each["state"] == "ALIVE", each["cores"], each["memory"]) for each in known]
    except (ValueError, KeyError, TypeError):
        return None
