"""The real local stack, one for each run of pytest: MinIO, a Spark cluster, one Spark session."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

import localstack
from tests.support.stack_home import STACK_HOME, processes_of_stack, settings_of_tests
from toolkit.cli.place import _on_stack
from toolkit.pipeline import RunRequest, run
from toolkit.profiles import Profile, load_profile
from toolkit.session import spark_session
from toolkit.storage import Storage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import psutil
    from pyspark.sql import SparkSession

    from localstack import StackSettings, StackState
    from toolkit.runs import RunRecord

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


@pytest.fixture(scope="session")
def stack_settings(request: pytest.FixtureRequest) -> StackSettings:
    """Return the settings of the tests' own stack: free ports, and a bucket for each worker."""
    settings = settings_of_tests(request.config.stash[STACK_HOME])
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    return replace(settings, bucket=f"fruits-{worker}") if worker else settings


@pytest.fixture(scope="session")
def stack(stack_settings: StackSettings) -> StackState:
    """Start the stack unless it runs, amid AWS variables; `pytest_sessionfinish` ends it."""
    with pytest.MonkeyPatch.context() as environment:
        for name, value in HOSTILE_AWS.items():
            environment.setenv(name, value)
        for settings in (settings_of_tests(stack_settings.root), stack_settings):
            state = localstack.up(settings, say=_silently)  # makes the bucket of each: fruits, too
    return state


@pytest.fixture(scope="session")
def profile(stack: StackState) -> Profile:
    """Return the profile `local` on one core of the stack: a command may run beside."""
    options = {
        "s3": {"bucket": stack.bucket},
        "spark": {"cores": 1, "executor_memory": "1g"},
    }
    # Short-lived JVMs: optimising their code costs more than it gains.
    quick = " -XX:TieredStopAtLevel=1"
    jvms = replace(
        stack,
        driver_java_options=stack.driver_java_options + quick,
        executor_java_options=stack.executor_java_options + quick,
    )
    return _on_stack(load_profile("local", options=options), jvms)


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
def record(
    spark: SparkSession,
    profile: Profile,
    mixed_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> RunRecord:
    """Return the record of one run that several tests look at."""
    log = tmp_path_factory.mktemp("log") / "driver.log"
    return run(RunRequest(images=str(mixed_folder)), profile, log=log, spark=spark)


@pytest.fixture(scope="session")
def processes_of() -> Callable[[StackSettings], list[psutil.Process]]:
    """Return the function that finds the living processes of a stack, whoever started them."""
    return processes_of_stack


def _silently(text: str, seconds: float | None) -> None:
    """Take what `up` says."""


@pytest.fixture
def hostile_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set AWS variables that would break or divert a local run that heeds them."""
    for name, value in HOSTILE_AWS.items():
        monkeypatch.setenv(name, value)
