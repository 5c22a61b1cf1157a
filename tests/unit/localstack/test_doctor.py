"""What the doctor finds, and that it changes nothing."""

import shutil
import socket
from dataclasses import replace
from pathlib import Path

import pytest

import localstack
from localstack import doctor, java
from localstack.wsl import Wsl


def check_of(settings, name):
    return next(each for each in localstack.checks(settings) if each.name == name)


def test_a_bare_machine_gets_remedies_and_stays_as_it_is(stack_settings, tmp_path):
    bare = replace(stack_settings, root=tmp_path / "state", cache=tmp_path / "cache")
    checks = {each.name: each for each in localstack.checks(bare)}
    assert checks["S3A jars"].ok == checks["MinIO"].ok == "warn"
    assert checks["MinIO"].remedy == "toolkit up"
    assert list(tmp_path.iterdir()) == []
    assert all(each.remedy for each in checks.values() if each.ok is not True)


def test_a_foreign_holder_of_a_port_is_named(stack_settings, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = replace(stack_settings, root=tmp_path, spark_port=server.getsockname()[1])
        check = check_of(taken, "Port of spark")
    assert check.ok is False
    assert "in use by process" in check.detail
    assert "--spark-port" in check.remedy


def test_missing_java_comes_with_its_package(stack_settings, tmp_path, monkeypatch):
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(java, "_SYSTEM_JVMS", tmp_path)
    check = check_of(stack_settings, "Java")
    assert check.ok is False
    assert check.remedy.startswith("sudo apt-get install")


def test_a_full_disk_is_found(stack_settings, monkeypatch):
    usage = shutil.disk_usage("/")._replace(free=10**8)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert check_of(stack_settings, "Disk").ok is False


@pytest.mark.parametrize(
    ("root", "verdict"), [("/mnt/c/Users/me/state", "warn"), ("/home/me/state", True)]
)
def test_in_wsl_a_folder_on_a_windows_drive_is_called_slow(
    stack_settings, monkeypatch, root, verdict
):
    monkeypatch.setattr(doctor, "this_wsl", lambda: Wsl(version=2, distribution="Ubuntu"))
    settings = replace(stack_settings, root=Path(root))
    assert check_of(settings, "Stack's folder").ok == verdict


def test_wsl_1_is_not_recommended(stack_settings, monkeypatch):
    monkeypatch.setattr(doctor, "this_wsl", lambda: Wsl(version=1, distribution="Ubuntu"))
    check = check_of(stack_settings, "Windows")
    assert check.ok == "warn"
    assert "wsl --set-version Ubuntu 2" in check.remedy
