"""What the stack says without having started: logs, status, ports that are taken."""

from __future__ import annotations

import os
import socket
from dataclasses import replace

import pytest

import localstack
from localstack.errors import LocalStackError, PortInUseError


@pytest.fixture
def settings(stack_settings, tmp_path):
    return replace(stack_settings, root=tmp_path / "root")


def test_following_a_log_yields_old_lines_and_then_new_ones(settings):
    log = settings.log("minio")
    log.parent.mkdir(parents=True)
    log.write_text("one\ntwo\nthr")
    lines = localstack.follow(settings, "minio", lines=2)
    assert next(lines) == "two"
    with log.open("a") as out:
        out.write("ee\nfour\n")
    assert [next(lines), next(lines)] == ["three", "four"]
    lines.close()
    assert localstack.logs(settings, "minio", lines=2) == ["three", "four"]


def test_an_unknown_service_and_one_that_never_ran_are_told_apart(settings):
    with pytest.raises(LocalStackError, match="no service 'postgres'"):
        localstack.logs(settings, "postgres")
    with pytest.raises(LocalStackError, match="has never run"):
        localstack.logs(settings, "minio")


def test_status_and_down_of_a_stack_that_never_ran_touch_nothing(settings):
    assert localstack.state(settings) is None
    assert {each.state for each in localstack.status(settings).services} == {"stopped"}
    assert localstack.down(settings) == []
    assert not settings.home.exists()


def test_a_port_in_use_stops_up_before_anything_starts(settings, processes_of):
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = replace(settings, minio_port=server.getsockname()[1])
        with pytest.raises(PortInUseError, match=f"process {os.getpid()}") as error:
            localstack.up(taken, say=lambda *_: None)
    assert "--minio-port" in error.value.remedy
    assert processes_of(settings) == []
    assert list(settings.home.glob("run/*")) == []
