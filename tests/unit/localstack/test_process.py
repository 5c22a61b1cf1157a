"""Processes are known again by their birth, ended whole, and never mistaken for others."""

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from localstack import process
from localstack.errors import PortInUseError
from tests.support.waiting import eventually


@pytest.fixture
def record(tmp_path):
    return tmp_path / "run" / "service.json"


@pytest.fixture
def start(tmp_path, record):
    def started(*command):
        log = tmp_path / "service.log"
        return process.start(
            command, env=os.environ, home=tmp_path, record=record, log=log, ports={"minio_port": 1}
        )

    yield started
    process.end(record, home=tmp_path, grace_s=1)


def test_a_service_is_known_again_from_its_record(start, record, tmp_path):
    daemon = start("sleep", "60")
    again = process.read_record(record)
    assert again == daemon
    assert again.alive()
    assert process.end(record, home=tmp_path)
    assert not again.alive()
    assert not record.exists()


def test_ending_what_does_not_run_says_so(record, tmp_path):
    assert process.end(record, home=tmp_path) is False


def test_a_foreign_process_with_the_recorded_pid_is_not_ended(record, tmp_path):
    # As strict as can be: it leads a session of its own, and even carries the stack's mark.
    foreign = subprocess.Popen(
        ["sleep", "60"],
        start_new_session=True,
        env={**os.environ, "TOOLKIT_STACK_HOME": str(tmp_path)},
    )
    try:
        boot, _, ticks = process.birth_of(foreign.pid).rpartition(":")
        record.parent.mkdir()
        record.write_text(
            json.dumps(
                {
                    "pid": foreign.pid,
                    "birth": f"{boot}:{int(ticks) - 1}",
                    "started_at": 0.0,
                    "ports": {},
                }
            )
        )
        assert not process.read_record(record).alive()
        assert process.end(record, home=tmp_path) is False
        assert foreign.poll() is None
        assert not record.exists()
    finally:
        foreign.kill()
        foreign.wait()


def test_a_foreign_session_without_the_mark_is_not_ended(record, tmp_path):
    foreign = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        birth = process.birth_of(foreign.pid)
        record.parent.mkdir()
        record.write_text(
            json.dumps({"pid": foreign.pid, "birth": birth, "started_at": 0.0, "ports": {}})
        )
        assert process.end(record, home=tmp_path) is False
        assert foreign.poll() is None
        assert record.exists()  # as long as the process that it names lives
    finally:
        foreign.kill()
        foreign.wait()


def test_end_right_after_start_leaves_nothing(start, record, tmp_path):
    left = []
    for _ in range(60):
        daemon = start("sleep", "60")
        found = process.end(record, home=tmp_path)
        if not found or daemon.alive() or record.exists():
            left.append(daemon)
            os.kill(daemon.pid, signal.SIGKILL)
    assert left == []


def test_processes_in_the_middle_of_an_exec_are_ended_too(start, record, tmp_path, monkeypatch):
    daemon = start("sh", "-c", "sleep 60 & wait")
    child = eventually(lambda: _children_of(daemon.pid))[0]
    looks = {daemon.pid: 0, child: 0}
    shown = process._shown_environment

    def empty_at_first(folder):
        pid = int(folder.name)
        if pid not in looks:
            return shown(folder)
        looks[pid] += 1
        return shown(folder) if looks[pid] > 3 else None

    monkeypatch.setattr(process, "_shown_environment", empty_at_first)
    assert process.end(record, home=tmp_path) is True
    assert (process.birth_of(daemon.pid), process.birth_of(child)) == (None, None)
    assert not record.exists()


def _children_of(pid):
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in listed.split()]


def test_a_child_without_an_environment_is_not_waited_for_and_not_ended(start, record, tmp_path):
    child_file = tmp_path / "child"
    start("sh", "-c", f"env -i sleep 60 & echo $! > {child_file}; wait")
    eventually(lambda: child_file.exists() and child_file.read_text().strip())
    child = int(child_file.read_text())
    try:
        eventually(lambda: process.environment_of(child, within_s=3600) == [])
        assert process.end(record, home=tmp_path) is True
        assert process.birth_of(child) is not None
        assert not record.exists()
    finally:
        os.kill(child, signal.SIGKILL)


def test_an_exec_that_does_not_end_is_not_waited_for_without_end(start, record, monkeypatch):
    daemon = start("sleep", "60")
    with monkeypatch.context() as patch:
        patch.setattr(process, "_shown_environment", lambda _: None)
        assert process.environment_of(daemon.pid, within_s=0.01) == []
        patch.setattr(process, "environment_of", lambda _: [])
        assert process.end(record, home=record.parents[1]) is False
    assert process.read_record(record) == daemon
    assert daemon.alive()


@pytest.mark.parametrize(
    ("state", "memory", "environ", "begin", "end", "shown"),
    [
        ("S", 4096, b"A=1\0B=2\0", 100, 108, b"A=1\0B=2\0"),
        ("R", 4096, b"", 0, 0, None),  # the kernel has set no address yet
        ("R", 4096, b"", 100, 0, None),
        ("R", 4096, b"", 100, 108, None),  # the exec ended between the two looks
        ("S", 4096, b"", 100, 100, b""),  # env -i
        ("Z", 0, b"", 0, 0, b""),
        ("I", 0, b"", 0, 0, b""),  # a thread of the kernel
    ],
)
def test_an_empty_environment_is_told_from_one_in_the_making(
    tmp_path, state, memory, environ, begin, end, shown
):
    (tmp_path / "environ").write_bytes(environ)
    fields = [state, *["0"] * 19, memory, *["0"] * 26, begin, end, 0]
    (tmp_path / "stat").write_text(f"7 (a) b) {' '.join(map(str, fields))}\n")
    assert process._shown_environment(tmp_path) == shown


def test_children_whose_parent_died_are_ended_too(start, record, tmp_path):
    child_file = tmp_path / "child"
    # As pyspark's daemon does, the child leaves its parent's process group.
    start(
        sys.executable,
        "-c",
        "import os, time, pathlib\n"
        "if os.fork() == 0:\n"
        "    os.setpgid(0, 0)\n"
        f"    pathlib.Path({str(child_file)!r}).write_text(str(os.getpid()))\n"
        "    time.sleep(60)\n",
    )
    daemon = process.read_record(record)
    eventually(lambda: not daemon.alive() and child_file.exists() and child_file.read_text())
    child = int(child_file.read_text())
    assert process.birth_of(child) is not None
    assert process.end(record, home=tmp_path) is True
    assert process.birth_of(child) is None


def test_a_service_that_will_not_listen_is_ended_by_force(start, record, tmp_path):
    daemon = start("sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 0.1; done")
    eventually(lambda: "deaf" in (tmp_path / "service.log").read_text())
    assert process.end(record, home=tmp_path, grace_s=0.05)
    assert not daemon.alive()


def test_an_unreadable_record_is_no_service(record, tmp_path):
    record.parent.mkdir()
    record.write_text('{"pid": 1')
    assert process.read_record(record) is None
    assert process.end(record, home=tmp_path) is False
    assert not record.exists()


def test_a_port_in_use_is_reported_with_its_holder_and_the_option_that_moves_it():
    listen = (
        "import socket, time\n"
        "server = socket.create_server(('127.0.0.1', 0))\n"
        "print(server.getsockname()[1], flush=True)\n"
        "time.sleep(60)\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", listen], stdout=subprocess.PIPE, text=True)
    try:
        with holder.stdout:
            port = int(holder.stdout.readline())
        with pytest.raises(PortInUseError) as error:
            process.require_free({"spark_ui_port": port})
        assert f"Port {port} is in use by process {holder.pid} (" in error.value.message
        assert "create_server" in error.value.message
        assert "toolkit up --spark-ui-port" in error.value.remedy
    finally:
        holder.kill()
        holder.wait()


def test_a_port_held_on_all_addresses_counts_as_in_use():
    with socket.create_server(("0.0.0.0", 0)) as server:
        assert process.port_holder(server.getsockname()[1]).startswith(f"process {os.getpid()} (")


def test_free_ports_differ_and_are_free():
    ports = process.free_ports(5)
    assert len(set(ports)) == 5
    assert [process.port_holder(port) for port in ports] == [None] * 5


def test_a_lock_lets_one_in_at_a_time(tmp_path):
    lock = tmp_path / "lock"
    order = []

    def second():
        with process.locked(lock):
            order.append("second")

    thread = threading.Thread(target=second)
    with lock.open("ab") as other:
        with process.locked(lock):
            with pytest.raises(BlockingIOError):
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            thread.start()
            order.append("first")
        thread.join(timeout=60)
        assert order == ["first", "second"]
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_an_interrupted_command_takes_its_children_along(tmp_path):
    child_file = tmp_path / "child"
    script = f"sleep 60 & echo $! > {child_file}; wait"
    call = (
        "import os, pathlib\n"
        "from localstack.process import run_owned\n"
        f"run_owned(['sh', '-c', {script!r}], env=os.environ, "
        f"log=pathlib.Path({str(tmp_path / 'log')!r}))\n"
    )
    caller = subprocess.Popen([sys.executable, "-c", call], stderr=subprocess.DEVNULL)
    eventually(lambda: child_file.exists() and child_file.read_text().strip())
    child = int(child_file.read_text())
    assert process.birth_of(child) is not None
    caller.send_signal(signal.SIGINT)
    assert caller.wait(timeout=60) != 0
    eventually(lambda: process.birth_of(child) is None)


def test_a_foreign_configuration_is_not_inherited(monkeypatch):
    foreign = ["AWS_PROFILE", "MINIO_ROOT_USER", "SPARK_HOME", "PYSPARK_PYTHON", "HADOOP_CONF_DIR"]
    for name in foreign:
        monkeypatch.setenv(name, "theirs")
    environment = process.inherited_environment()
    assert not set(foreign) & environment.keys()
    assert environment["PATH"] == os.environ["PATH"]
