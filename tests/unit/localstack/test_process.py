"""Processes are known again by their birth, ended whole, and never mistaken for others."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from localstack import process
from localstack.errors import PortInUseError


def wait_until(condition, *, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


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
    finally:
        foreign.kill()
        foreign.wait()


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
    wait_until(lambda: not daemon.alive() and child_file.exists() and child_file.read_text())
    child = int(child_file.read_text())
    assert process.birth_of(child) is not None
    assert process.end(record, home=tmp_path) is True
    assert process.birth_of(child) is None


def test_a_service_that_will_not_listen_is_ended_by_force(start, record, tmp_path):
    daemon = start("sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 0.1; done")
    wait_until(lambda: "deaf" in (tmp_path / "service.log").read_text())
    assert process.end(record, home=tmp_path, grace_s=0.3)
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
    order = []

    def second():
        with process.locked(tmp_path / "lock"):
            order.append("second")

    with process.locked(tmp_path / "lock"):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.2)
        order.append("first")
    thread.join(timeout=10)
    assert order == ["first", "second"]


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
    wait_until(lambda: child_file.exists() and child_file.read_text().strip())
    child = int(child_file.read_text())
    assert process.birth_of(child) is not None
    caller.send_signal(signal.SIGINT)
    assert caller.wait(timeout=10) != 0
    wait_until(lambda: process.birth_of(child) is None)


def test_a_foreign_configuration_is_not_inherited(monkeypatch):
    foreign = ["AWS_PROFILE", "MINIO_ROOT_USER", "SPARK_HOME", "PYSPARK_PYTHON", "HADOOP_CONF_DIR"]
    for name in foreign:
        monkeypatch.setenv(name, "theirs")
    environment = process.inherited_environment()
    assert not set(foreign) & environment.keys()
    assert environment["PATH"] == os.environ["PATH"]
