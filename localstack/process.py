"""Processes that outlive the command that starts them, known again by more than their pid."""

from __future__ import annotations

import fcntl
import json
import os
import random
import signal
import socket
import subprocess
import time
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from localstack.errors import PortInUseError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = [
    "Daemon",
    "birth_of",
    "end",
    "environment_of",
    "free_ports",
    "inherited_environment",
    "locked",
    "port_holder",
    "read_record",
    "require_free",
    "run_owned",
    "start",
    "tail",
]

# In the environment of every process of a stack, and so of every process that one starts.
_MARK = "TOOLKIT_STACK_HOME"

# Settings of the user's own AWS, MinIO, Spark and Hadoop: none of them may reach the stack.
_FOREIGN = ("AWS_", "MINIO_", "SPARK_", "PYSPARK_", "HADOOP_", "YARN_")

_OWN_PORTS = range(20_000, 32_768)

# Far longer than an exec takes even under load; a wait without end would hang `toolkit down`.
_LONGEST_EXEC_S = 5.0


@dataclass(frozen=True)
class Daemon:
    """A running service, as its record file describes it.

    Parameters
    ----------
    pid
        Process id. It is also the id of the session in which all processes of the service live.
    birth
        What `birth_of` said of the process when it was started.
    started_at
        Seconds since 1970, for people.
    ports
        Setting name (``minio_port``) -> port it listens on.
    """

    pid: int
    birth: str
    started_at: float
    ports: dict[str, int]

    def alive(self) -> bool:
        """Say whether this very process still runs."""
        return birth_of(self.pid) == self.birth


def birth_of(pid: int) -> str | None:
    """Say when a process was born, in a form that no other process of this machine ever shares.

    The kernel's own clock ticks since boot are compared, with the boot's id: a creation time of the
    wall clock shifts when that clock is set, as it is whenever a laptop with WSL2 wakes up.

    Parameters
    ----------
    pid
        Process id.

    Returns
    -------
    str or None
        ``<boot id>:<ticks>``; None when there is no such process or only its remains (a zombie).
    """
    try:
        stat = _stat_of(Path(f"/proc/{pid}"))
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return None
    return None if stat.ended else f"{boot}:{stat.birth_ticks}"


@dataclass(frozen=True)
class _Stat:
    """What /proc/PID/stat says; the addresses are 0 in the middle of an exec."""

    ended: bool
    birth_ticks: str
    memory_bytes: int
    environment_begin: int
    environment_end: int


def _stat_of(folder: Path) -> _Stat:
    text = (folder / "stat").read_text(encoding="utf-8", errors="replace")
    # proc(5): the name, field 2, is in parentheses and may hold anything. State is field 3.
    fields = text.rpartition(")")[2].split()
    return _Stat(
        ended=fields[0] in "ZX",
        birth_ticks=fields[22 - 3],
        memory_bytes=int(fields[23 - 3]),
        environment_begin=int(fields[50 - 3]),
        environment_end=int(fields[51 - 3]),
    )


def environment_of(pid: int, *, within_s: float = _LONGEST_EXEC_S) -> list[bytes]:
    """Return the environment that a process was started with.

    In the middle of an exec, when the old program is gone and the new one is not yet set up, the
    kernel shows an empty environment. `subprocess.Popen` returns in just that moment.

    Parameters
    ----------
    pid
        Process id.
    within_s
        Seconds to wait at most for an exec to end.

    Returns
    -------
    list of bytes
        Items ``NAME=value``; [] when the process has none, has ended or is still in its exec.

    Raises
    ------
    OSError
        There is no such process, or it is another user's.
    """
    deadline = time.monotonic() + within_s
    while (shown := _shown_environment(Path(f"/proc/{pid}"))) is None:
        if time.monotonic() > deadline:
            return []
        time.sleep(0.001)
    return [item for item in shown.split(b"\0") if item]


def _shown_environment(folder: Path) -> bytes | None:
    """Return the environment in a folder of /proc; None in the middle of an exec."""
    shown = (folder / "environ").read_bytes()
    if shown:
        return shown
    # Looked at after the environment: an exec that hid it has not ended here, or has left the
    # addresses of what the next look will show.
    stat = _stat_of(folder)
    empty = 0 < stat.environment_begin == stat.environment_end
    has_memory = stat.memory_bytes > 0  # threads of the kernel have none, nor what has ended
    return None if has_memory and not empty else b""


def inherited_environment() -> dict[str, str]:
    """Return this process' environment without the settings of other S3s and other Sparks."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}


def start(  # noqa: PLR0913 - a process is what these say, each is told by name
    command: Sequence[str | Path],
    *,
    env: Mapping[str, str],
    home: Path,
    record: Path,
    log: Path,
    ports: Mapping[str, int],
) -> Daemon:
    """Start a service in a session of its own and write down which process it is.

    Parameters
    ----------
    command
        Program and arguments. No secrets: every user of the machine can read them.
    env
        The whole environment of the service.
    home
        The stack's folder: working directory of the service, and the mark its processes carry.
    record
        File that takes the `Daemon`.
    log
        File that takes standard output and error, appended.
    ports
        Setting name -> port it will listen on.

    Returns
    -------
    Daemon
        The service; it may not answer yet.
    """
    for file in (record, log):
        file.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out:
        process = subprocess.Popen(
            command,
            env={**env, _MARK: str(home)},
            cwd=home,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        daemon = Daemon(
            pid=process.pid,
            birth=birth_of(process.pid) or "ended at once",
            started_at=time.time(),
            ports=dict(ports),
        )
        record.write_text(json.dumps(asdict(daemon)), encoding="utf-8")
    except BaseException:
        process.kill()  # without a record nobody could ever end it
        process.wait()
        raise
    # It is meant to outlive this object, which otherwise warns when it is collected.
    process.returncode = 0
    return daemon


def read_record(record: Path) -> Daemon | None:
    """Return what a record file says, or None where there is no readable one."""
    try:
        return Daemon(**json.loads(record.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def end(record: Path, *, home: Path, grace_s: float = 20.0) -> bool:
    """End a service and everything it started, and remove its record.

    Only processes of the service's own session that carry the stack's mark are touched: children
    whose parent died too, but nobody who got the service's pid later. The record stays as long as
    the process that it names lives.

    Parameters
    ----------
    record
        The service's record file.
    home
        The stack's folder, as given to `start`.
    grace_s
        Seconds between the request to end and the end by force.

    Returns
    -------
    bool
        Whether something was ended.
    """
    daemon = read_record(record)
    if daemon is None:
        record.unlink(missing_ok=True)
        return False
    found = _end_session(daemon, home, by=signal.SIGTERM, within_s=grace_s)
    # What did not listen, and what was started in the meantime.
    while _end_session(daemon, home, by=signal.SIGKILL, within_s=1):
        found = True
    if not daemon.alive():
        record.unlink(missing_ok=True)
    return found


def _end_session(daemon: Daemon, home: Path, *, by: signal.Signals, within_s: float) -> bool:
    members = _session_members(daemon, home)
    for pid in members:
        with suppress(ProcessLookupError):
            os.kill(pid, by)
    deadline = time.monotonic() + within_s
    while any(birth_of(pid) == birth for pid, birth in members.items()):
        if time.monotonic() > deadline:
            break
        time.sleep(0.02)
    # The remains of our own children are ours to bury; those of others go to init.
    for pid in {daemon.pid, *members}:
        with suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
    return bool(members)


def _session_members(daemon: Daemon, home: Path) -> dict[int, str]:
    if birth_of(daemon.pid) not in (daemon.birth, None):
        return {}  # the kernel gives a pid away only when its whole session is gone
    mark = os.fsencode(f"{_MARK}={home}")
    members = {}
    for entry in Path("/proc").glob("[0-9]*"):
        pid = int(entry.name)
        with suppress(OSError):  # it ended while we looked, or is another user's
            if os.getsid(pid) != daemon.pid:
                continue
            birth = birth_of(pid)
            # Its birth again: the wait for an exec may outlast the process.
            if birth and mark in environment_of(pid) and birth_of(pid) == birth:
                members[pid] = birth
    return members


def run_owned(command: Sequence[str | Path], *, env: Mapping[str, str], log: Path) -> int:
    """Run a command to its end; if we are interrupted, end it and all that it started.

    Parameters
    ----------
    command
        Program and arguments.
    env
        Its whole environment.
    log
        File that takes its output, replaced.

    Returns
    -------
    int
        Its exit status.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        log.open("wb") as out,
        subprocess.Popen(
            command,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process,
    ):
        try:
            return process.wait()
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise


def tail(log: Path, *, lines: int) -> list[str]:
    """Return the last lines of a log file, without their line ends; [] where there is no file."""
    from collections import deque

    try:
        with log.open(encoding="utf-8", errors="replace") as text:
            return [line.rstrip("\n") for line in deque(text, maxlen=lines)]
    except FileNotFoundError:
        return []


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file, waiting for whoever holds it now; the kernel frees it if we die.

    Parameters
    ----------
    path
        The lock file; made if need be, never removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def free_ports(count: int) -> list[int]:
    """Return so many different ports of the loopback device that nobody listens on.

    They are drawn from below the range that Linux takes ports of outgoing connections (and of
    port 0) from: until the service binds its own, no passing connection can take it.
    """
    free: list[int] = []
    for port in random.sample(_OWN_PORTS, len(_OWN_PORTS)):
        if len(free) == count:
            break
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            free.append(port)
    return free


def require_free(ports: Mapping[str, int]) -> None:
    """Check that nobody listens on the ports.

    Parameters
    ----------
    ports
        Setting name (``minio_port``) -> port.

    Raises
    ------
    PortInUseError
        Somebody does; the message names the process, the remedy the option that moves our port.
    """
    for name, port in ports.items():
        holder = port_holder(port)
        if holder is not None:
            option = "--" + name.replace("_", "-")
            raise PortInUseError(
                f"Port {port} is in use by {holder}.",
                remedy=f"End that process, or choose another port: toolkit up {option} {port + 10}",
            )


def port_holder(port: int) -> str | None:
    """Say who listens on a port of this machine; None when it is free.

    Parameters
    ----------
    port
        Port of the loopback device, in [1, 65535].

    Returns
    -------
    str or None
        ``process 4711 (minio server …)``, or a circumscription where the kernel does not tell us.
    """
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except PermissionError:
        return "the system (ports below 1024 are root's)"
    except OSError:
        return _listener(port) or "a process that this user may not see"
    return None


def _listener(port: int) -> str | None:
    import psutil

    for connection in psutil.net_connections(kind="tcp"):
        if connection.status != psutil.CONN_LISTEN:
            continue
        if not connection.laddr or connection.laddr[1] != port:
            continue
        if connection.pid is None:
            return None
        with suppress(psutil.Error):
            command = " ".join(psutil.Process(connection.pid).cmdline())
            return f"process {connection.pid} ({_shortened(command)})"
        return f"process {connection.pid}"
    return None


def _shortened(command: str, *, length: int = 100) -> str:
    return command if len(command) <= length else command[: length - 1] + "…"
