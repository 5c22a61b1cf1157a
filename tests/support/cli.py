"""The command line: in this process or in one of its own, with or without a terminal."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack, nullcontext
from pathlib import Path
from subprocess import CompletedProcess
from typing import TYPE_CHECKING

import pytest

from tests.support.stack import HOSTILE_AWS
from toolkit import extraction
from toolkit.cli.main import main

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyspark.sql import SparkSession

    from localstack import StackSettings, StackState


@pytest.fixture(scope="session")
def stack_environment(stack: StackState, stack_settings: StackSettings) -> dict[str, str]:
    """Return variables that lead the command line to the tests' stack, amid AWS variables."""
    return HOSTILE_AWS | {
        "TOOLKIT_HOME": str(stack_settings.root),
        "TOOLKIT_S3__BUCKET": stack.bucket,
        "TOOLKIT_SPARK__CORES": "1",
        "TOOLKIT_SPARK__EXECUTOR_MEMORY": "1g",
    }


@pytest.fixture
def toolkit_process(stack_environment: dict[str, str]) -> Callable[..., CompletedProcess]:
    """Return a function that calls the command line in a process of its own."""

    def call(*arguments: str) -> CompletedProcess:
        return subprocess.run(
            [sys.executable, "-m", "toolkit", *arguments],
            env=os.environ | stack_environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )

    return call


@pytest.fixture
def toolkit(
    stack_environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., CompletedProcess]:
    """Return a function that calls the command line in this process: quick, but without Spark.

    With Spark: `toolkit_on_spark`.
    """

    def call(*arguments: str, **extra: str) -> CompletedProcess:
        with monkeypatch.context() as patch:
            patch.setenv("TOOLKIT_DEBUG", "")  # --debug sets it: not for the next test
            for name, value in (stack_environment | extra).items():
                patch.setenv(name, value)
            patch.setattr(sys, "argv", ["toolkit", *arguments])
            with pytest.raises(SystemExit) as exited:
                main()
        told = capsys.readouterr()
        return CompletedProcess(arguments, exited.value.code or 0, told.out, told.err)

    return call


@pytest.fixture
def toolkit_on_spark(
    toolkit: Callable[..., CompletedProcess], spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., CompletedProcess]:
    """Return a function that calls the command line in this process, on the shared session."""
    monkeypatch.setattr(extraction, "spark_session", lambda *_, **__: nullcontext(spark))
    return toolkit


@pytest.fixture
def call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., CompletedProcess]:
    """Return a function that calls the command line: on a terminal if `typed` is text."""

    def call(*arguments: str, typed: str | None = None) -> CompletedProcess:
        with ExitStack() as exits:
            if typed is None:
                stdin = exits.enter_context(Path(os.devnull).open())
            else:
                keyboard, terminal = os.openpty()
                exits.callback(os.close, keyboard)
                stdin = exits.enter_context(os.fdopen(terminal))
                os.write(keyboard, typed.encode())
            patch = exits.enter_context(monkeypatch.context())
            patch.setattr(sys, "argv", ["toolkit", *arguments])
            patch.setattr(sys, "stdin", stdin)
            with pytest.raises(SystemExit) as exited:
                main()
        told = capsys.readouterr()
        return CompletedProcess(arguments, exited.value.code or 0, told.out, told.err)

    return call
