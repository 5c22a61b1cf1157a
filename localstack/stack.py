"""The local stack as a whole: up, down, status, logs."""

from __future__ import annotations

import shutil
import time
from collections import deque
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from localstack import class_archive, jars, minio, probe, process, spark
from localstack.errors import BuildError, LocalStackError, ServiceError
from localstack.java import Java, find_java

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from localstack.home import StackSettings

__all__ = [
    "SERVICES",
    "ServiceStatus",
    "StackState",
    "StackStatus",
    "down",
    "follow",
    "logs",
    "purge",
    "state",
    "status",
    "up",
]

SERVICES = ("minio", "master", "worker")
"""The services of a stack, in the order in which they start."""

_TITLES = {"minio": "MinIO", "master": "Spark master", "worker": "Spark worker"}
_PAGES = {"minio": "minio_console_port", "master": "spark_ui_port", "worker": "worker_ui_port"}
_PATIENCE_S = 60.0


@dataclass(frozen=True, kw_only=True)
class StackState:
    """What a session needs to know of a running stack.

    Parameters
    ----------
    s3_endpoint, s3_console
        URLs of MinIO's API and of its page; None when the profile names an S3 of its own.
    bucket
        The stack's bucket.
    access_key_id, secret_access_key
        MinIO's root credentials, not shown by `repr`; None when the profile names an S3 of its own.
    spark_master_url
        ``spark://127.0.0.1:<port>``.
    spark_master_page, spark_worker_page
        URLs of Spark's pages.
    jars
        Folder of the S3A jars; ``<jars>/*`` is a class path.
    java_home
        The Java that the cluster runs on; give it to the driver as JAVA_HOME.
    driver_java_options, executor_java_options
        Options for the JVMs of a session.
    cores
        Cores of the living workers.
    executor_memory_mib
        Memory that an executor may take, in MiB.
    """

    s3_endpoint: str | None
    s3_console: str | None
    bucket: str
    access_key_id: str | None = field(repr=False)
    secret_access_key: str | None = field(repr=False)
    spark_master_url: str
    spark_master_page: str
    spark_worker_page: str
    jars: Path
    java_home: Path
    driver_java_options: str
    executor_java_options: str
    cores: int
    executor_memory_mib: int


@dataclass(frozen=True, kw_only=True)
class ServiceStatus:
    """One service: ``state`` is running, unhealthy (it lives, but does not answer) or stopped."""

    name: str
    state: str
    pid: int | None
    url: str | None
    page: str | None
    log: Path
    uptime_s: float | None


@dataclass(frozen=True, kw_only=True)
class StackStatus:
    """All services, and what the Spark workers offer."""

    name: str
    home: Path
    services: tuple[ServiceStatus, ...]
    workers_alive: int
    cores: int
    memory_mib: int

    @property
    def running(self) -> bool:
        """Whether every service runs and answers."""
        return all(service.state == "running" for service in self.services)

    def as_dict(self) -> dict[str, Any]:
        """Return the status in the types of JSON."""
        return {
            **asdict(self),
            "home": str(self.home),
            "running": self.running,
            "services": [{**asdict(each), "log": str(each.log)} for each in self.services],
        }


def up(settings: StackSettings, *, say: Callable[[str, float | None], None]) -> StackState:
    """Start what is not running, and wait until all of it answers.

    What already runs stays as it is, on its ports. If anything fails, or the user interrupts, what
    this call has started is ended.

    Parameters
    ----------
    settings
        Which stack, and its ports and size.
    say
        Takes what happens and how long it took, in seconds (None: it begins, or takes no time).

    Returns
    -------
    StackState
        Where everything is.

    Raises
    ------
    LocalStackError
        A port is taken, a program is missing, or a service does not start.
    """
    settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    with process.locked(settings.lock):
        with _ended_on_failure(settings) as started:
            _start_what_is_missing(settings, say=say, started=started)
        running = state(settings)
    if running is None:
        raise ServiceError(
            "The stack ended while it was started.",
            remedy="Read `toolkit logs`, then `toolkit up`.",
        )
    _say_what_differs(settings, running, say=say)
    return running


@contextmanager
def _ended_on_failure(settings: StackSettings) -> Iterator[list[str]]:
    started: list[str] = []
    try:
        yield started
    except BaseException:
        for service in reversed(started):
            process.end(settings.record(service), home=settings.home, grace_s=3)
        raise


def _start_what_is_missing(
    settings: StackSettings, *, say: Callable[[str, float | None], None], started: list[str]
) -> None:
    needs_minio = not settings.external_s3 and _living(settings, "minio") is None
    needs_spark = not (_living(settings, "master") and _living(settings, "worker"))

    # What the user must mend is found before anything slow begins.
    ports: dict[str, int] = {}
    if needs_spark:
        java = find_java()
        for service in ("worker", "master"):  # half a cluster, left by a crash
            process.end(settings.record(service), home=settings.home)
        ports |= _chosen_ports(settings, "spark_port", "spark_ui_port", "worker_ui_port")
    if needs_minio:
        ports |= _chosen_ports(settings, "minio_port", "minio_console_port")

    fetched = jars.fetched_jars(settings.cache, log=settings.log("jars"), say=say)
    if needs_spark:
        _archive_classes(settings, java=java, jars=fetched, say=say)
    if needs_minio:
        log = settings.log("minio-build")
        program = minio.built_binary(settings.cache, log=log, say=say)

    began = time.monotonic()
    if needs_minio:
        started.append("minio")
        minio.start(program, settings=settings, ports=_pick(ports, "minio"))
    if needs_spark:
        started.append("master")
        spark.start_master(settings=settings, java=java, ports=_pick(ports, "spark"))
    if not settings.external_s3:
        _wait_for(settings, "minio")
        minio.ensure_bucket(settings, port=_port(settings, "minio", "minio_port"))
    if needs_minio:
        say(f"MinIO answers on port {ports['minio_port']}", time.monotonic() - began)
    _wait_for(settings, "master")
    if needs_spark:
        started.append("worker")
        spark.start_worker(
            settings=settings,
            java=java,
            ports=_pick(ports, "worker"),
            master_port=ports["spark_port"],
        )
    _wait_for(settings, "worker")
    if needs_spark:
        say(f"Spark has a worker on port {ports['spark_port']}", time.monotonic() - began)


def _archive_classes(
    settings: StackSettings, *, java: Java, jars: Path, say: Callable[[str, float | None], None]
) -> None:
    try:
        log = settings.log("class-archive")
        class_archive.made_archive(settings.cache, java=java, jars=jars, log=log, say=say)
    except BuildError as exc:  # a slower stack is better than none
        say(str(exc), None)


def _chosen_ports(settings: StackSettings, *names: str) -> dict[str, int]:
    wanted = {name: getattr(settings, name) for name in names}
    process.require_free({name: port for name, port in wanted.items() if port})
    free = iter(process.free_ports(len(names)))
    return {name: port or next(free) for name, port in wanted.items()}


def _pick(ports: dict[str, int], service: str) -> dict[str, int]:
    return {name: port for name, port in ports.items() if name.startswith(f"{service}_")}


def _living(settings: StackSettings, service: str) -> process.Daemon | None:
    daemon = process.read_record(settings.record(service))
    return daemon if daemon is not None and daemon.alive() else None


def _port(settings: StackSettings, service: str, name: str) -> int:
    daemon = process.read_record(settings.record(service))
    return daemon.ports[name] if daemon is not None else 0


def _answers(settings: StackSettings, service: str) -> bool:
    if service == "minio":
        return minio.healthy(_port(settings, "minio", "minio_port"))
    workers = spark.workers(_port(settings, "master", "spark_ui_port"))
    if service == "master":
        # Its page may answer before it takes workers.
        return workers is not None and probe.listens(_port(settings, "master", "spark_port"))
    return any(worker.alive for worker in workers or [])


def _wait_for(settings: StackSettings, service: str) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not _answers(settings, service):
        if _living(settings, service) is None:
            what = "ended"
        elif time.monotonic() > deadline:
            what = f"did not answer within {_PATIENCE_S:.0f} s"
        else:
            time.sleep(0.05)
            continue
        log = settings.log(service)
        raise ServiceError(
            f"{_TITLES[service]} {what}. Its last words in {log}:\n"
            + "\n".join(process.tail(log, lines=8)),
            remedy="toolkit down, then toolkit up; `toolkit doctor` checks this machine.",
        )


def _say_what_differs(
    settings: StackSettings, running: StackState, *, say: Callable[[str, float | None], None]
) -> None:
    actual: dict[str, int] = {
        "cores": running.cores,
        "memory_mib": running.executor_memory_mib,
    }
    for service in SERVICES:
        daemon = process.read_record(settings.record(service))
        actual |= daemon.ports if daemon is not None else {}
    for name, value in actual.items():
        wanted = getattr(settings, name)
        if wanted and wanted != value:
            label = name.replace("_", " ")
            say(f"{label} stays {value}, not {wanted}, until `toolkit down`", None)


def state(settings: StackSettings) -> StackState | None:
    """Return where everything is, or None when the stack does not run and answer as a whole.

    Parameters
    ----------
    settings
        Which stack.
    """
    master, worker = _living(settings, "master"), _living(settings, "worker")
    server = None if settings.external_s3 else _living(settings, "minio")
    root = minio.credentials(settings.home) if server is not None else None
    if master is None or worker is None or (root is None and not settings.external_s3):
        return None
    workers = [each for each in spark.workers(master.ports["spark_ui_port"]) or [] if each.alive]
    if not workers:
        return None
    java = find_java()
    s3a = jars.folder(settings.cache)
    return StackState(
        s3_endpoint=f"http://127.0.0.1:{server.ports['minio_port']}" if server else None,
        s3_console=_page(server, "minio"),
        bucket=settings.bucket,
        access_key_id=root.access_key_id if root else None,
        secret_access_key=root.secret_access_key if root else None,
        spark_master_url=f"spark://127.0.0.1:{master.ports['spark_port']}",
        spark_master_page=_page(master, "master") or "",
        spark_worker_page=_page(worker, "worker") or "",
        jars=s3a,
        java_home=java.home,
        driver_java_options=class_archive.java_options(settings.cache, java=java, jars=s3a),
        executor_java_options=spark.executor_java_options(settings, java),
        cores=sum(each.cores for each in workers),
        executor_memory_mib=min(each.memory_mib for each in workers),
    )


def _page(daemon: process.Daemon | None, service: str) -> str | None:
    return f"http://localhost:{daemon.ports[_PAGES[service]]}" if daemon is not None else None


def down(settings: StackSettings) -> list[str]:
    """End every process of the stack, executors too; data, credentials and logs stay.

    Parameters
    ----------
    settings
        Which stack.

    Returns
    -------
    list of str
        Titles of the services that were ended; [] when none ran.
    """
    with process.locked(settings.lock):
        return _end_all(settings)


def _end_all(settings: StackSettings) -> list[str]:
    return [
        _TITLES[service]
        for service in reversed(SERVICES)  # the worker first: it takes its executors along
        if process.end(settings.record(service), home=settings.home)
    ]


def purge(settings: StackSettings) -> None:
    """End the stack and delete all it has: objects, credentials, logs. The caches stay.

    Parameters
    ----------
    settings
        Which stack.
    """
    with process.locked(settings.lock):
        _end_all(settings)
        shutil.rmtree(settings.home, ignore_errors=True)
        if settings.home.exists():
            raise LocalStackError(
                f"{settings.home} cannot be deleted completely.",
                remedy=f"rm -rf {settings.home}",
            )


def status(settings: StackSettings) -> StackStatus:
    """Return how each service is and what the Spark workers offer; nothing is started.

    Parameters
    ----------
    settings
        Which stack.
    """
    names = SERVICES[1:] if settings.external_s3 else SERVICES
    alive = []
    if _living(settings, "master") is not None:
        known = spark.workers(_port(settings, "master", "spark_ui_port"))
        alive = [worker for worker in known or [] if worker.alive]
    return StackStatus(
        name=settings.name,
        home=settings.home,
        services=tuple(_service_status(settings, name) for name in names),
        workers_alive=len(alive),
        cores=sum(worker.cores for worker in alive),
        memory_mib=sum(worker.memory_mib for worker in alive),
    )


def _service_status(settings: StackSettings, service: str) -> ServiceStatus:
    daemon = _living(settings, service)
    log = settings.log(service)
    if daemon is None:
        return ServiceStatus(
            name=service, state="stopped", pid=None, url=None, page=None, log=log, uptime_s=None
        )
    urls = {
        "minio": f"http://127.0.0.1:{daemon.ports.get('minio_port')}",
        "master": f"spark://127.0.0.1:{daemon.ports.get('spark_port')}",
    }
    return ServiceStatus(
        name=service,
        state="running" if _answers(settings, service) else "unhealthy",
        pid=daemon.pid,
        url=urls.get(service),
        page=_page(daemon, service),
        log=log,
        uptime_s=round(max(0.0, time.time() - daemon.started_at), 1),
    )


def logs(settings: StackSettings, service: str, *, lines: int = 100) -> list[str]:
    """Return the last lines of a service's log.

    Parameters
    ----------
    settings
        Which stack.
    service
        One of `SERVICES`.
    lines
        How many at most.

    Raises
    ------
    LocalStackError
        There is no such service, or it has never run.
    """
    return process.tail(_log_file(settings, service), lines=lines)


def follow(settings: StackSettings, service: str, *, lines: int = 10) -> Iterator[str]:
    """Yield the last lines of a service's log, and then each new one as it is written, for ever.

    Parameters
    ----------
    settings
        Which stack.
    service
        One of `SERVICES`.
    lines
        How many old lines come first.

    Raises
    ------
    LocalStackError
        There is no such service, or it has never run.
    """
    with _log_file(settings, service).open(encoding="utf-8", errors="replace") as text:
        begun = ""
        for line in deque(text, maxlen=lines):
            begun = line
            if line.endswith("\n"):
                yield line[:-1]
                begun = ""
        while True:
            begun += text.readline()
            if begun.endswith("\n"):
                yield begun[:-1]
                begun = ""
            else:
                time.sleep(0.2)


def _log_file(settings: StackSettings, service: str) -> Path:
    if service not in SERVICES:
        raise LocalStackError(
            f"There is no service {service!r}.", remedy=f"Choose of {', '.join(SERVICES)}."
        )
    log = settings.log(service)
    if not log.exists():
        raise LocalStackError(
            f"{_TITLES[service]} of the stack {settings.name} has never run.", remedy="toolkit up"
        )
    return log
