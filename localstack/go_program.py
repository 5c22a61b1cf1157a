"""Programs that are published as Go source alone: built once for this user."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from localstack import go, process
from localstack.errors import BuildError

__all__ = ["built_program"]


def built_program(module: str, program: Path, *, log: Path) -> Path:
    """Return a program, built first if no checkout of this user has done so yet.

    Parameters
    ----------
    module
        What ``go install`` takes: path and pinned version. Go compares what it fetches with the
        checksums of its public database.
    program
        Where the program is to be, in ``bin`` of the user's cache folder. What the build needs is
        beside ``bin``, and goes when it is done.
    log
        File that takes the compiler's output.

    Raises
    ------
    BuildError
        Go or the module cannot be fetched, or the build fails.
    """
    if program.exists():
        return program
    cache = program.parent.parent
    with process.locked(cache / f"{program.name}-build.lock"):
        if not program.exists():  # else the one who held the lock has built it
            _build(module, program, log=log, workshop=cache / f"go-{program.name}")
    return program


def _build(module: str, program: Path, *, log: Path, workshop: Path) -> None:
    toolchain = go.installed_go() or go.fetched_go(workshop, log=log)
    program.parent.mkdir(parents=True, exist_ok=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=program.parent, prefix=f".{program.name}-") as fresh:
        own = {"GOBIN": fresh, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local"}
        status = process.run_owned(
            [toolchain.program, "install", "-trimpath", module],
            env=os.environ | toolchain.env | own,
            log=log,
        )
        if status != 0:
            raise BuildError(
                f"`go install {module}` failed:\n" + "\n".join(process.tail(log, lines=5)),
                remedy="Check the network and the free disk space and repeat the command; "
                f"all that Go said is in {log}.",
            )
        (built,) = Path(fresh).iterdir()
        built.replace(program)
    # Kept until here, so that an interrupted build goes on where it stopped.
    shutil.rmtree(workshop, ignore_errors=True)
