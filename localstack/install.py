"""Get what the local stack needs before its first start: ``python -m localstack.install PART``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from localstack import jars, minio
from localstack.class_archive import made_archive
from localstack.errors import LocalStackError
from localstack.home import cache_folder, state_folder
from localstack.java import find_java

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["install", "main"]


def _archived_classes(cache: Path, *, log: Path, say: Callable[[str, float | None], None]) -> Path:
    s3a = jars.fetched_jars(cache, log=log, say=say)
    return made_archive(cache, java=find_java(), jars=s3a, log=log, say=say)


_PARTS = {"jars": jars.fetched_jars, "classes": _archived_classes, "minio": minio.built_binary}


def install(part: str) -> None:
    """Fetch or build one part, unless another checkout of this user has done so.

    Parameters
    ----------
    part
        ``jars``: those that make Spark speak s3a; ``classes``: the archive from which its JVMs
        start; ``minio``: the server.

    Raises
    ------
    LocalStackError
        It cannot be fetched or built.
    """
    log = state_folder() / "logs" / f"install-{part}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    _PARTS[part](cache_folder(), log=log, say=_say)


def main(arguments: list[str]) -> int:
    """Install the part that the command line names, and return the exit code."""
    if len(arguments) != 1 or arguments[0] not in _PARTS:
        sys.stderr.write(f"usage: python -m localstack.install {'|'.join(_PARTS)}\n")
        return 2
    try:
        install(arguments[0])
    except LocalStackError as exc:
        sys.stderr.write(f"{exc}\n")
        return 1
    return 0


def _say(what: str, seconds: float | None) -> None:
    took = "" if seconds is None else f" ({seconds:.0f} s)"
    sys.stderr.write(f"{what}{took}\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
