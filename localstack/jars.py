"""The jars that make Spark speak s3a: declared in ``s3a-ivy.xml``, fetched once, checked."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import tempfile
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import TYPE_CHECKING

from localstack.errors import JarsError, MissingProgramError
from localstack.java import find_java
from localstack.process import locked, run_owned, tail

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "IVY_FILE",
    "complete",
    "fetched_jars",
    "folder",
    "require_matching_hadoop",
    "spark_home",
]

IVY_FILE = Path(__file__).with_name("s3a-ivy.xml")
"""The one place where the jars are named."""

_MANIFEST = "manifest.json"


def spark_home() -> Path:
    """Return the folder of the installed pyspark, without importing it.

    Raises
    ------
    MissingProgramError
        There is no pyspark.
    """
    found = importlib.util.find_spec("pyspark")
    if found is None or not found.submodule_search_locations:
        raise MissingProgramError(
            "pyspark is not installed in this environment.",
            remedy="bash localstack/bootstrap.sh",
        )
    return Path(found.submodule_search_locations[0])


def folder(cache: Path, *, ivy_file: Path = IVY_FILE) -> Path:
    """Return the folder of the jars that an Ivy file names; another file, another folder."""
    return cache / "jars" / hashlib.sha256(ivy_file.read_bytes()).hexdigest()[:16]


def require_matching_hadoop(*, spark: Path, ivy_file: Path = IVY_FILE) -> None:
    """Check that hadoop-aws has the version of the Hadoop inside pyspark.

    Parameters
    ----------
    spark
        Folder of pyspark.
    ivy_file
        The file that names hadoop-aws.

    Raises
    ------
    JarsError
        The versions differ. S3A would fail much later, with a missing method.
    """
    named = dict(_direct_dependencies(ivy_file)).get("hadoop-aws")
    for part in ("hadoop-client-api", "hadoop-client-runtime"):
        bundled = [
            jar.stem.removeprefix(f"{part}-") for jar in (spark / "jars").glob(f"{part}-*.jar")
        ]
        if bundled != [named]:
            raise JarsError(
                f"{ivy_file} names hadoop-aws {named}, but pyspark in {spark} brings "
                f"{part} {', '.join(bundled) or '(none)'}; they must be the same.",
                remedy="Install the pyspark of pyproject.toml: bash localstack/bootstrap.sh",
            )


def _direct_dependencies(ivy_file: Path) -> list[tuple[str, str]]:
    root = ET.parse(ivy_file).getroot()  # noqa: S314 - the project's own file
    return [(each.attrib["name"], each.attrib["rev"]) for each in root.iter("dependency")]


def fetched_jars(
    cache: Path,
    *,
    log: Path,
    say: Callable[[str, float | None], None],
    ivy_file: Path = IVY_FILE,
) -> Path:
    """Return the folder of the S3A jars, fetched first if no checkout of this user has done so yet.

    Parameters
    ----------
    cache
        Cache folder that all checkouts share.
    log
        File that takes Ivy's output.
    say
        Takes what happens and how long it took, in seconds (None: it begins).
    ivy_file
        The file that names the jars.

    Returns
    -------
    Path
        A folder that holds the jars and their manifest. For a class path append ``/*``.

    Raises
    ------
    JarsError
        They do not fit pyspark, or cannot be fetched.
    """
    spark = spark_home()
    require_matching_hadoop(spark=spark, ivy_file=ivy_file)
    jars = folder(cache, ivy_file=ivy_file)
    if complete(jars):
        return jars
    with locked(cache / "jars.lock"):
        if not complete(jars):  # else the one who held the lock has fetched them
            began = time.monotonic()
            say("Fetching the S3A jars, once for this user: 12 MB", None)
            _fetch(jars, cache=cache, spark=spark, ivy_file=ivy_file, log=log)
            say("The S3A jars are there", time.monotonic() - began)
    return jars


def complete(jars: Path) -> bool:
    """Say whether a folder holds every jar of its manifest, in its full size."""
    try:
        manifest = json.loads((jars / _MANIFEST).read_text(encoding="utf-8"))
        return all((jars / name).stat().st_size == each["bytes"] for name, each in manifest.items())
    except (OSError, ValueError):
        return False


def _fetch(jars: Path, *, cache: Path, spark: Path, ivy_file: Path, log: Path) -> None:
    jars.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=jars.parent, prefix=".jars-") as unfinished:
        fresh = Path(unfinished, "jars")
        _run_ivy(fresh, cache=cache, spark=spark, ivy_file=ivy_file, log=log)
        manifest = {
            jar.name: {
                "bytes": jar.stat().st_size,
                "sha256": hashlib.sha256(jar.read_bytes()).hexdigest(),
            }
            for jar in sorted(fresh.glob("*.jar"))
        }
        missing = [
            f"{name}-{version}.jar"
            for name, version in _direct_dependencies(ivy_file)
            if f"{name}-{version}.jar" not in manifest
        ]
        if missing:
            raise JarsError(
                f"Ivy left out {', '.join(missing)}.",
                remedy=f"Delete {cache / 'ivy'} and repeat the command; Ivy's words are in {log}.",
            )
        (fresh / _MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        shutil.rmtree(jars, ignore_errors=True)  # an incomplete one
        fresh.rename(jars)


def _run_ivy(target: Path, *, cache: Path, spark: Path, ivy_file: Path, log: Path) -> None:
    ivy = next((spark / "jars").glob("ivy-*.jar"))
    status = run_owned(
        [
            *(find_java().program, "-jar", ivy, "-cache", cache / "ivy", "-ivy", ivy_file),
            *("-retrieve", f"{target}/[artifact]-[revision].[ext]", "-types", "jar"),
        ],
        env=os.environ,
        log=log,
    )
    if status != 0:
        raise JarsError(
            "Ivy cannot fetch the S3A jars:\n" + "\n".join(tail(log, lines=5)),
            remedy="Check the network and repeat the command. Behind a proxy: "
            "export JAVA_TOOL_OPTIONS='-Dhttps.proxyHost=… -Dhttps.proxyPort=…' "
            f"(all that Ivy said is in {log}).",
        )
