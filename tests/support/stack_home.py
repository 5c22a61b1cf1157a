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
        name="tests",
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
