"""Where the local stack keeps its state and its cache, and what can be set about it."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from localstack.errors import LocalStackError

__all__ = ["StackSettings", "cache_folder", "stack_name", "state_folder"]

_CHECKOUT = Path(__file__).resolve().parent.parent
_APPLICATION = "fruits-toolkit"


def state_folder() -> Path:
    """Return the folder of all stacks: ``$TOOLKIT_HOME``, or the user's state folder."""
    import platformdirs

    return _folder("TOOLKIT_HOME") or platformdirs.user_state_path(_APPLICATION)


def cache_folder() -> Path:
    """Return the folder of what can be made again: ``$TOOLKIT_CACHE``, or the user's cache."""
    import platformdirs

    return _folder("TOOLKIT_CACHE") or platformdirs.user_cache_path(_APPLICATION)


def stack_name(checkout: Path = _CHECKOUT) -> str:
    """Name the stack of a checkout so that several checkouts do not meet.

    Parameters
    ----------
    checkout
        Root folder of the checkout.

    Returns
    -------
    str
        The folder's name and 8 hexadecimal digits of the SHA-256 of its path: ``fruits-1f0c5a9e``.
    """
    path = checkout.resolve()
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", path.name).strip(".-") or "stack"
    return f"{readable}-{hashlib.sha256(os.fsencode(path)).hexdigest()[:8]}"


def _folder(variable: str) -> Path | None:
    value = os.environ.get(variable)
    return Path(value).expanduser().absolute() if value else None


@dataclass(frozen=True, kw_only=True)
class StackSettings:
    """What can be set about a local stack.

    Parameters
    ----------
    name
        Name of the stack and of its folder; default: derived from the checkout's path.
    root
        Folder that holds the stacks' folders.
    cache
        Folder of the MinIO binary and the jars, shared by all stacks.
    bucket
        Name of the bucket that `up` makes.
    external_s3
        The profile names an S3 endpoint of its own: no MinIO is started.
    minio_port, minio_console_port, spark_port, spark_ui_port, worker_ui_port
        Ports of MinIO's API and console, of the Spark master, of its page and of the worker's page,
        in [0, 65535]; 0 takes a free one.
    cores
        Cores of the Spark worker; None: all that this process may use.
    memory_mib
        Memory that executors may take, in MiB, at least 512; None: sized to the machine.

    Raises
    ------
    LocalStackError
        A value is out of its range.
    """

    name: str = field(default_factory=stack_name)
    root: Path = field(default_factory=state_folder)
    cache: Path = field(default_factory=cache_folder)
    bucket: str = "fruits"
    external_s3: bool = False
    minio_port: int = 9000
    minio_console_port: int = 9001
    spark_port: int = 7077
    spark_ui_port: int = 8080
    worker_ui_port: int = 8081
    cores: int | None = None
    memory_mib: int | None = None

    def __post_init__(self) -> None:
        # The name becomes a folder that `purge` deletes: it must not lead out of the root.
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", self.name):
            raise LocalStackError(
                f"{self.name!r} cannot name a stack.",
                remedy="Use letters, digits, '.', '_' and '-'.",
            )
        if self.cores is not None and self.cores < 1:
            raise LocalStackError(
                f"A Spark worker cannot have {self.cores} cores.", remedy="Give it 1 or more."
            )
        if self.memory_mib is not None and self.memory_mib < _LEAST_MEMORY_MIB:
            raise LocalStackError(
                f"A Spark worker cannot live on {self.memory_mib} MiB.",
                remedy=f"Give it {_LEAST_MEMORY_MIB} MiB or more.",
            )

    @property
    def home(self) -> Path:
        """Folder of this stack: data, credentials, logs and process records."""
        return self.root / self.name

    @property
    def lock(self) -> Path:
        """Lock file of `up` and `down`; beside the home, so that `purge` can delete that."""
        return self.root / f".{self.name}.lock"

    def record(self, service: str) -> Path:
        """Return the file that says which process a service is."""
        return self.home / "run" / f"{service}.json"

    def log(self, service: str) -> Path:
        """Return the log file of a service."""
        return self.home / "logs" / f"{service}.log"


_LEAST_MEMORY_MIB = 512  # Spark refuses an executor with less than 450 MiB.
