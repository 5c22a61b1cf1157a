"""The account of the command line, which waits for nothing."""

from __future__ import annotations

from functools import cache, partial

import pytest
import typer

from tests.support.cli_account import aws, bucket
from tests.support.clock import FastClock
from toolkit.cloud.sweep import sweep

__all__ = ["aws", "bucket"]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the command sweep by a clock whose waits are over at once, and be put together once."""
    clock = FastClock(at_least=15).clock
    monkeypatch.setattr("toolkit.cloud.sweep.sweep", partial(sweep, clock=clock))
    monkeypatch.setattr("typer.main.get_command", command_of)


command_of = cache(typer.main.get_command)
