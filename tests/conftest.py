"""The session-wide real stack that tests share."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from subprocess import CompletedProcess
from typing import TYPE_CHECKING

import psutil
import pytest

import localstack
from toolkit.cli.main import main
from toolkit.cli.place import _on_stack
from toolkit.pipeline import RunRequest, run
from toolkit.profiles import Profile, load_profile
from toolkit.session import spark_session
from toolkit.storage import Storage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pyspark.sql import SparkSession

    from localstack import StackSettings, StackState
    from toolkit.runs import RunRecord

# AWS for the tests of `toolkit.cloud`: moto's server, and servers that answer as AWS does.
pytest_plugins = ["aws_stand_ins"]

# What a developer who also works with AWS may have set: none of it may touch the stack.
HOSTILE_AWS = {
    "AWS_ACCESS_KEY_ID": "AKIAWRONGWRONGWRONG0",
    "AWS_SECRET_ACCESS_KEY": "wrong/wrong/wrong/wrong/wrong/wrong/wron",
    "AWS_SESSION_TOKEN": "wrong",
    "AWS_PROFILE": "no-such-profile",
    "AWS_REGION": "eu-west-3",
    "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
    "AWS_CA_BUNDLE": "/no/such/bundle.pem",
}


def pytest_configure() -> None:
    """Set up the process that runs the tests."""
    # With moto and botocore in the process, a full collection looks through 700,000 objects: half a
    # second each time, a quarter of the tests of AWS by Python's own threshold.
    gc.set_threshold(50_000)
    # Whoever ends the tests ends the servers that they have started.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # Let Ctrl-C reach what tests start: a shell's background jobs begin with it ignored.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def stack_settings(tmp_path_factory: pytest.TempPathFactory) -> StackSettings:
    """Return the settings of the tests' own stack: a temporary home, free ports."""
    return localstack.StackSettings(
        root=tmp_path_factory.mktemp("toolkit-home"),
        minio_port=0,
        minio_console_port=0,
        spark_port=0,
        spark_ui_port=0,
        worker_ui_port=0,
        cores=2,
        memory_mib=2048,
    )


@pytest.fixture(scope="session")
def stack(stack_settings: StackSettings) -> Iterator[StackState]:
    """Give a running stack, started amid foreign AWS variables, and end it without a trace."""
    try:
        with pytest.MonkeyPatch.context() as environment:
            for name, value in HOSTILE_AWS.items():
                environment.setenv(name, value)
            state = localstack.up(stack_settings, say=_silently)
        yield state
    finally:
        localstack.down(stack_settings)
    assert _processes_of(stack_settings) == []


@pytest.fixture(scope="session")
def profile(stack: StackState) -> Profile:
    """Return the profile `local` on the tests' stack, on half of it: a CLI may run beside."""
    half = {"spark": {"cores": 1, "executor_memory": "1g"}}
    return _on_stack(load_profile("local", options=half), stack)


@pytest.fixture(scope="session")
def storage(profile: Profile) -> Storage:
    """Return the stack's object store."""
    return Storage(profile.s3)


@pytest.fixture(scope="session")
def spark(profile: Profile, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """Give the session that all tests share, on the standalone cluster, amid AWS variables."""
    log = tmp_path_factory.mktemp("spark") / "driver.log"
    with ExitStack() as exits:
        with pytest.MonkeyPatch.context() as environment:
            for name, value in HOSTILE_AWS.items():
                environment.setenv(name, value)
            session = exits.enter_context(spark_session(profile, app="tests", log=log))
        yield session


@pytest.fixture(scope="session")
def bad_files() -> dict[str, bytes]:
    """Return names and contents of files that are no readable images."""
    return {
        "truncated.jpg": b"\xff\xd8\xff\xe0\x00\x10JFIF\x00",
        "zero bytes.jpg": b"",
        "text.jpg": b"Hello",
    }


@pytest.fixture(scope="session")
def mixed_folder(
    tmp_path_factory: pytest.TempPathFactory,
    sample_files: list[Path],
    bad_files: dict[str, bytes],
) -> Path:
    """Return a folder of two dozen sample images of six classes, and three bad files."""
    root = tmp_path_factory.mktemp("images") / "mixed fruits"
    for file in sample_files:
        target = root / file.parent.name / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
    (root / "Bad").mkdir()
    for name, content in bad_files.items():
        (root / "Bad" / name).write_bytes(content)
    return root


@pytest.fixture(scope="session")
def record(
    spark: SparkSession,
    profile: Profile,
    mixed_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> RunRecord:
    """Return the record of one run that several tests look at."""
    log = tmp_path_factory.mktemp("log") / "driver.log"
    return run(RunRequest(images=str(mixed_folder)), profile, log=log, spark=spark)


@pytest.fixture
def stack_environment(stack: StackState, stack_settings: StackSettings) -> dict[str, str]:
    """Return variables that lead the command line to the tests' stack, amid AWS variables."""
    return HOSTILE_AWS | {
        "TOOLKIT_HOME": str(stack_settings.root),
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
    """Return a function that calls the command line in this process: quick, but without Spark."""

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


@pytest.fixture(scope="session")
def processes_of() -> Callable[[StackSettings], list[psutil.Process]]:
    """Return the function that finds the living processes of a stack, whoever started them."""
    return _processes_of


def _processes_of(settings: StackSettings) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("TOOLKIT_STACK_HOME") == str(settings.home):
                found.append(process)
        except psutil.Error:
            continue
    return found


def _silently(text: str, seconds: float | None) -> None:
    """Take what `up` says."""


@pytest.fixture
def hostile_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set AWS variables that would break or divert a local run that heeds them."""
    for name, value in HOSTILE_AWS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="session")
def sample_files() -> list[Path]:
    """Return four sample images of each of six classes."""
    folders = sorted((Path(__file__).parents[1] / "sample_images" / "Training").iterdir())
    return [file for folder in folders[:6] for file in sorted(folder.glob("*.jpg"))[:4]]
