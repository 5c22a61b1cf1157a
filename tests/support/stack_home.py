"""The folder of the stack that the tests share: its settings, and what runs of it."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

import localstack
from localstack import StackSettings

STACK_HOME = pytest.StashKey[Path]()
"""Where the settings of pytest keep the folder of the stack."""


def settings_of_tests(home: Path) -> StackSettings:
    """Return the settings of the stack in a folder: free ports, more cores than tests use."""
    return localstack.StackSettings(
        root=home,
        minio_port=0,
        minio_console_port=0,
        spark_port=0,
        spark_ui_port=0,
        worker_ui_port=0,
        cores=3,
        memory_mib=3072,
    )


def processes_of_stack(settings: StackSettings) -> list[psutil.Process]:
    """Return the living processes of a stack, whoever started them."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("TOOLKIT_STACK_HOME") == str(settings.home):
                found.append(process)
        except psutil.Error:
            continue
    return found


def empty_buckets(settings: StackSettings) -> None:
    """Delete all objects of a stack, markers of folders too, if it runs."""
    if (state := localstack.state(settings)) is None:
        return
    # Only here: every pytest imports this module, and few have a stack to empty.
    from minio import Minio
    from minio.deleteobjects import DeleteObject

    client = Minio(
        state.s3_endpoint.removeprefix("http://"),
        state.access_key_id,
        state.secret_access_key,
        secure=False,
    )
    for bucket in client.list_buckets():
        found = client.list_objects(bucket.name, recursive=True)
        objects = [DeleteObject(each.object_name) for each in found]
        assert list(client.remove_objects(bucket.name, objects)) == []


def end_stack(home: Path) -> list[psutil.Process]:
    """End the stack in a folder, delete what it has, and return processes that are left."""
    settings = settings_of_tests(home)
    if settings.home.exists():
        localstack.purge(settings)
    return processes_of_stack(settings)
