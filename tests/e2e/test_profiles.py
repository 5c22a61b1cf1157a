"""`toolkit profile` in a process of its own."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, suppress

import pytest

from tests.support.settings_file import FILE, no_settings, write

__all__ = ["no_settings"]

pytestmark = pytest.mark.usefixtures("no_settings")


def test_ctrl_c_leaves_the_file_as_it_was() -> None:
    file = write(FILE)
    with ExitStack() as exits:
        keyboard, terminal = os.openpty()
        exits.callback(os.close, keyboard)
        exits.callback(os.close, terminal)
        process = subprocess.Popen(
            [sys.executable, "-m", "toolkit", "profile", "init"],
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
        )
        exits.callback(process.wait)
        exits.callback(process.kill)
        read_until(keyboard, "S3 bucket")
        os.write(keyboard, b"new\n")
        read_until(keyboard, "AWS region")
        while process.poll() is None:  # one that comes just before the reading begins is lost
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(5)
        said = read_until(keyboard, "is as it was")
        assert process.returncode == 1
    assert file.name in said
    assert file.read_text() == FILE


def read_until(descriptor: int, text: str) -> str:
    """Read a terminal until a text has come."""
    told, end = "", time.monotonic() + 60
    while text not in told:
        ready, _, _ = select.select([descriptor], [], [], max(0, end - time.monotonic()))
        assert ready, f"{text!r} did not come: {told!r}"
        told += os.read(descriptor, 4096).decode()
    return told


def test_profile_commands_import_botocore_for_aws_alone() -> None:
    program = (
        "import sys\nfrom toolkit.cli.main import app\n"
        "try:\n    app(['profile', 'show', 'local'])\nexcept SystemExit:\n    pass\n"
        "print([name for name in ('botocore', 'tomlkit') if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stderr.strip() == "[]"
