"""The command line on moto's server, in an empty folder, with or without a terminal."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from pathlib import Path
from subprocess import CompletedProcess
from typing import TYPE_CHECKING

import pytest

from toolkit.cli.main import main

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from aws_stand_ins import Moto

BUCKET = "cli-fruits"


@pytest.fixture(autouse=True, scope="module")
def models_read_once() -> Iterator[None]:
    """Let all sessions share what they read of boto3's descriptions of AWS, megabytes each time."""
    from botocore.loaders import create_loader

    loader = create_loader()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")
        patch.setattr("botocore.session.create_loader", lambda _: loader)
        yield


@pytest.fixture
def bucket(no_aws: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Name a bucket to the toolkit, which has no other setting, and return its name."""
    for name in os.environ:
        if name.startswith("TOOLKIT_"):
            no_aws.delenv(name)
    here = tmp_path / "here"
    here.mkdir()
    no_aws.chdir(here)
    no_aws.setenv("TOOLKIT_S3__BUCKET", BUCKET)
    no_aws.setenv("TOOLKIT_S3__REGION", os.environ["AWS_REGION"])
    return BUCKET


@pytest.fixture
def aws(moto: Moto, bucket: str) -> Moto:
    """Give an account in which a promotion can begin."""
    moto.make_bucket(bucket)
    moto.equip()
    return moto


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
