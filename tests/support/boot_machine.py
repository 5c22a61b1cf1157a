"""A machine on which tests call the boot script: a copy of its files, a home of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support import CHECKOUT

if TYPE_CHECKING:
    from collections.abc import Iterator

LOCKS = ("requirements.lock", "requirements-dev.lock", "localstack/go-requirements.lock")
TOOLS = Path(sys.executable).parent
NOWHERE = "http://127.0.0.1:9"  # discard: nothing listens there


@dataclass
class Machine:
    """A copy of what the script reads, in a path with a space, and a home of its own."""

    folder: Path
    env: dict[str, str] = field(default_factory=dict)

    @property
    def checkout(self) -> Path:
        return self.folder / "my checkout"

    def command(self, *call: str, replaced: str = "") -> list[str | Path]:
        """Return the call of a job, some functions of the script replaced."""
        script = self.checkout / "localstack" / "bootstrap.sh"
        return ["bash", "-c", f'source "$1"; shift; {replaced}\nmain "$@"', "bash", script, *call]

    def bootstrap(
        self,
        *call: str,
        replaced: str = "",
        before: tuple[str, ...] = (),
        cwd: str | Path = "/",
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*before, *self.command(*call, replaced=replaced)],
            env=self.env,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )


@contextmanager
def boot_machine() -> Iterator[Machine]:
    """Make a machine that has uv already; it goes with the block."""
    # Not in pytest's tmp_path: another user must be able to read it.
    with tempfile.TemporaryDirectory() as folder:
        made = Machine(Path(folder))
        made.folder.chmod(0o755)
        for name in ("pyproject.toml", "localstack/bootstrap.sh", *LOCKS):
            target = made.checkout / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(CHECKOUT / name, target)
        uv = made.folder / "cache" / "uv" / uv_version() / "uv"
        uv.parent.mkdir(parents=True)
        uv.symlink_to(TOOLS / "uv")
        made.env = {
            "PATH": os.environ["PATH"],
            "HOME": str(made.folder / "home"),
            "TOOLKIT_HOME": str(made.folder / "state"),
            "TOOLKIT_CACHE": str(made.folder / "cache"),
            "UV_CACHE_DIR": str(made.folder / "uv-cache"),
            "UV_HTTP_RETRIES": "0",
        }
        yield made


def uv_version() -> str:
    """Return the version of uv in the lock."""
    return re.search(r"^uv==(\S+)", (CHECKOUT / LOCKS[0]).read_text(), re.MULTILINE)[1]
