"""The running stack: what it offers, where it listens, and what it keeps to itself."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import psutil

import localstack
from tests.support.waiting import eventually


def pids(settings):
    return {each.name: each.pid for each in localstack.status(settings).services}


def listening(processes):
    return {
        each.laddr
        for process in processes
        for each in process.net_connections(kind="inet")
        if each.status == psutil.CONN_LISTEN
    }


def test_status_shows_every_service_and_a_live_worker(stack, stack_settings):
    eventually(lambda: localstack.status(stack_settings).running)  # it may be slow to answer
    status = localstack.status(stack_settings)
    assert [each.name for each in status.services] == ["minio", "master", "worker"]
    assert (status.workers_alive, status.cores) == (1, stack_settings.cores)
    assert status.memory_mib == stack_settings.memory_mib
    assert all(each.pid and each.uptime_s >= 0 and each.log.exists() for each in status.services)
    assert json.loads(json.dumps(status.as_dict()))["services"][1]["url"] == stack.spark_master_url


def test_up_on_other_ports_keeps_the_running_ones_and_says_so(stack, stack_settings):
    before = pids(stack_settings)
    said = []
    assert localstack.up(stack_settings, say=lambda *each: said.append(each)) == stack
    assert said == []
    wanted = replace(stack_settings, minio_port=1234, cores=1)
    assert localstack.up(wanted, say=lambda text, _: said.append(text)) == stack
    port = stack.s3_endpoint.rpartition(":")[2]
    assert said == [
        f"cores stays {stack_settings.cores}, not 1, until `toolkit down`",
        f"minio port stays {port}, not 1234, until `toolkit down`",
    ]
    assert pids(stack_settings) == before


def test_credentials_are_in_one_private_file_alone(stack, stack_settings):
    secret = stack.secret_access_key
    file = stack_settings.home / "minio" / "credentials.env"
    assert file.stat().st_mode & 0o777 == 0o600
    assert secret in file.read_text()
    assert secret not in repr(stack)
    # `os.walk` passes over folders that MinIO removes in the meantime; `rglob` does not.
    walked = os.walk(stack_settings.home)
    files = {Path(folder, name) for folder, _, names in walked for name in names}
    for other in [*(files - {file}), *Path("/proc").glob("[0-9]*/cmdline")]:
        try:
            assert secret.encode() not in other.read_bytes(), other
        except OSError:
            continue  # a process or a running job's file, gone in the meantime


def test_no_foreign_aws_variable_reaches_the_services(stack, stack_settings, processes_of):
    # The stack was started amid them (tests/support/stack.py), and runs.
    services = processes_of(stack_settings)
    assert len(services) >= 3
    for service in services:
        environment = service.environ()
        assert [name for name in environment if name.startswith("AWS_")] == []
        assert stack.secret_access_key not in environment.values()


def test_services_listen_on_loopback_alone_where_the_state_says_and_nowhere_fixed(
    stack, stack_settings, processes_of
):
    found = listening(processes_of(stack_settings))
    assert {each.ip for each in found} <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    ports = {each.port for each in found}
    urls = (stack.s3_endpoint, stack.s3_console, stack.spark_master_url, stack.spark_master_page)
    assert {int(url.rpartition(":")[2]) for url in urls} < ports
    # Spark's REST port 6066 would make two stacks meet.
    assert not {6066, 7077, 8080, 8081, 9000, 9001} & ports


def test_logs_show_what_a_service_said(stack, stack_settings):
    everything = localstack.logs(stack_settings, "master", lines=1_000_000)  # the stack may be old
    assert any("Registering worker" in line for line in everything)
    assert len(localstack.logs(stack_settings, "minio", lines=2)) == 2
