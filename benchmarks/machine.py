"""The machine that figures were taken on: processor, memory, versions, commit, load."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["computes_bf16", "described", "short_cpu_name", "this_machine"]

_CHECKOUT = Path(__file__).parents[1]
_PACKAGES = (
    "pyspark",
    "keras",
    "tensorflow-cpu",
    "tensorflow",
    "openvino",
    "nncf",
    "daft",
    "obstore",
    "boto3",
    "scikit-learn",
    "numpy",
    "pillow",
)
# What the network's arithmetic runs on: vectors of 8-bit integers and of bf16, and matrices.
_FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_bf16", "amx_int8")


def this_machine(*, java_home: Path) -> dict[str, Any]:
    """Describe this machine and this checkout, in the types of JSON."""
    cpu = _cpu()
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "system": f"{_system()}, Linux {platform.release()}",
        "cpu": cpu["model name"],
        "cpu_features": [name for name in _FEATURES if name in cpu["flags"].split()],
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "load": os.getloadavg(),
        "commit": _commit(),
        "versions": {"python": platform.python_version(), "java": _java(java_home)} | _packages(),
    }


def computes_bf16() -> bool:
    """Whether the processor has instructions for bf16; it can emulate them, slower than f32."""
    return bool({"avx512_bf16", "amx_bf16"} & set(_cpu()["flags"].split()))


def short_cpu_name() -> str:
    """Return the processor's name as part of a file name: ``xeon-processor-2-50ghz``."""
    name = re.sub(r"\((R|TM)\)|\bIntel|\bAMD|\bCPU\b", "", _cpu()["model name"])
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or platform.machine()


def described(sessions: Sequence[dict[str, Any]], loads: Sequence[float]) -> list[str]:
    """Say in a few lines where and when figures were taken.

    Parameters
    ----------
    sessions
        What `this_machine` said whenever measuring began or was continued, and in ``smoke``
        whether that was with few images.
    loads
        Load average of the machine before each measurement.
    """
    newest = sessions[-1]
    features = ", ".join(newest["cpu_features"]) or "none of those looked for"
    lines = [
        f"{newest['cpu']}, {newest['cores']} cores; {features}",
        f"{newest['memory_gib']} GiB, {newest['system']}",
        ", ".join(f"{name} {number}" for name, number in newest["versions"].items()),
        f"commit {_all(sessions, 'commit')}; {_when(sessions)}",
    ]
    if loads:
        lines.append(
            "load average before the measurements (that of the one before included): "
            f"{min(loads):.1f} to {max(loads):.1f}"
        )
    if any(each["smoke"] for each in sessions):
        lines.append("SMOKE: few images; these figures mean nothing")
    if len({each["cpu"] for each in sessions}) > 1:
        lines.append(f"NOT ONE MACHINE: {_all(sessions, 'cpu')}")
    return lines


def _all(sessions: Sequence[dict[str, Any]], name: str) -> str:
    return ", ".join(dict.fromkeys(each[name] for each in sessions))


def _when(sessions: Sequence[dict[str, Any]]) -> str:
    first, last = sessions[0]["at"], sessions[-1]["at"]
    return first if len(sessions) == 1 else f"{first} to {last}, in {len(sessions)} slices"


def _cpu() -> dict[str, str]:
    """Return what the kernel says of the first processor; on arm64 it has no name there."""
    first = Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    said = {name.strip(): value.strip() for name, _, value in pairs}
    return {"model name": platform.machine(), "flags": said.get("Features", ""), **said}


def _system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        return platform.system()


def _commit() -> str:
    def git(*arguments: str) -> str:
        command = ["git", "-C", str(_CHECKOUT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no")
    return (git("rev-parse", "--short", "HEAD") or "unknown") + (" with changes" if changed else "")


def _java(home: Path) -> str:
    said = subprocess.run(
        [home / "bin" / "java", "-version"], capture_output=True, text=True, check=False
    ).stderr
    number = re.search(r'"([^"]+)"', said)
    return number[1] if number else "unknown"


def _packages() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
