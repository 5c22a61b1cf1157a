"""The Java that Spark runs on."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from localstack.errors import MissingProgramError

__all__ = ["INSTALL", "OLDEST", "TOO_NEW", "Java", "find_java"]

OLDEST = 17
TOO_NEW = 24  # Hadoop 3.4 calls Subject.getSubject, which Java 24 took away
"""Oldest Java that Spark 4 runs on."""

INSTALL = "sudo apt-get install -y openjdk-17-jre-headless"
"""The command that mends a missing Java on Debian and Ubuntu."""

_SYSTEM_JVMS = Path("/usr/lib/jvm")


@dataclass(frozen=True)
class Java:
    """A Java runtime.

    Parameters
    ----------
    home
        What JAVA_HOME should say.
    version
        Its feature version: 17, 21, …
    """

    home: Path
    version: int

    @property
    def program(self) -> Path:
        """Path of ``java``."""
        return self.home / "bin" / "java"


def find_java() -> Java:
    """Return the Java of JAVA_HOME, of the PATH or of the system: the first that is new enough.

    Raises
    ------
    MissingProgramError
        There is none; the message names those that do not fit.
    """
    found = []
    for home in _candidates():
        java = _java_at(home)
        if java is not None and OLDEST <= java.version < TOO_NEW:
            return java
        found += [java] if java is not None else []
    others = ", ".join(f"Java {java.version} in {java.home}" for java in found)
    raise MissingProgramError(
        f"Spark needs Java {OLDEST} to {TOO_NEW - 1}; this machine has {others or 'none'}.",
        remedy=INSTALL,
    )


def _candidates() -> list[Path]:
    homes = []
    if os.environ.get("JAVA_HOME"):
        homes.append(Path(os.environ["JAVA_HOME"]))
    on_path = shutil.which("java")
    if on_path is not None:
        homes.append(Path(on_path).resolve().parent.parent)
    # Debian's `java` may be an old one while a newer one is installed beside it.
    homes += sorted(program.parent.parent for program in _SYSTEM_JVMS.glob("*/bin/java"))
    return list(dict.fromkeys(homes))


def _java_at(home: Path) -> Java | None:
    try:
        said = subprocess.run(
            [home / "bin" / "java", "-version"], capture_output=True, text=True, check=False
        ).stderr
    except OSError:
        return None
    version = re.search(r'version "(?:1\.)?(\d+)', said)
    return Java(home, int(version[1])) if version else None
