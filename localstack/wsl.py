"""Windows seen from inside WSL: is this WSL, and where does a Windows path lie here."""

from __future__ import annotations

import configparser
import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from localstack.errors import LocalStackError

__all__ = ["Wsl", "is_windows_path", "on_windows_drive", "this_wsl", "translated"]

_DRIVE = re.compile(r"(?:[\\/]{2}\?[\\/])?([A-Za-z]):([\\/].*|)", re.DOTALL)
_SHARE = re.compile(
    r"[\\/]{2}(?:wsl\$|wsl\.localhost)[\\/]([^\\/]+)(.*)", re.DOTALL | re.IGNORECASE
)
_MOUNT_ROOT = PurePosixPath("/mnt")
_NETWORK = re.compile(r"\\\\[^\\?].*", re.DOTALL)


@dataclass(frozen=True)
class Wsl:
    """The facts of a Windows Subsystem for Linux.

    Parameters
    ----------
    version
        1 or 2.
    distribution
        Name of the distribution, as Windows shows it; "" when unknown.
    mount_root
        Folder under which Windows' drives are mounted.
    """

    version: int
    distribution: str
    mount_root: PurePosixPath = _MOUNT_ROOT


def this_wsl() -> Wsl | None:
    """Return the facts of the WSL that this is, or None when it is none."""
    kernel = platform.release()
    # "5.15.167.4-microsoft-standard-WSL2" and, in WSL 1, "4.4.0-19041-Microsoft".
    if "microsoft" not in kernel.lower():
        return None
    return Wsl(
        version=1 if kernel.endswith("-Microsoft") else 2,
        distribution=os.environ.get("WSL_DISTRO_NAME", ""),
        mount_root=_mount_root(Path("/etc/wsl.conf")),
    )


def _mount_root(config: Path) -> PurePosixPath:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    try:
        parser.read_string(config.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, configparser.Error):
        return _MOUNT_ROOT
    return PurePosixPath(parser.get("automount", "root", fallback=str(_MOUNT_ROOT)).strip("\"' "))


def is_windows_path(path: str) -> bool:
    r"""Say whether a path is absolute in Windows' way: ``C:\…``, ``C:/…`` or ``\\host\…``."""
    return any(pattern.fullmatch(path) for pattern in (_DRIVE, _SHARE, _NETWORK))


def translated(path: str, *, wsl: Wsl) -> Path:
    r"""Return where a Windows path lies in this distribution.

    Parameters
    ----------
    path
        ``C:\Users\me\fruits``, ``C:/Users/me/fruits``, ``\\wsl$\Ubuntu\home\me`` or
        ``\\wsl.localhost\Ubuntu\home\me``.
    wsl
        The WSL that we are in.

    Returns
    -------
    Path
        ``/mnt/c/Users/me/fruits``, ``/home/me``; it need not exist.

    Raises
    ------
    LocalStackError
        The path is of another distribution, of a network share, or no absolute Windows path.
    """
    if share := _SHARE.fullmatch(path):
        distribution, rest = share.groups()
        if wsl.distribution and distribution.lower() != wsl.distribution.lower():
            raise LocalStackError(
                f"{path} is a path of the distribution {distribution}; this is {wsl.distribution}.",
                remedy=f"Copy the files here, or run the command inside {distribution}.",
            )
        return Path("/", *_parts(rest))
    if drive := _DRIVE.fullmatch(path):
        letter, rest = drive.groups()
        return Path(wsl.mount_root, letter.lower(), *_parts(rest))
    if _NETWORK.fullmatch(path):
        raise LocalStackError(
            f"{path} is on a network share, which WSL does not mount by itself.",
            remedy="Copy the files to a drive, or mount the share: sudo mount -t drvfs …",
        )
    raise LocalStackError(
        f"{path} is no absolute Windows path.", remedy=r"Write it as C:\folder\folder."
    )


def _parts(path: str) -> list[str]:
    return [part for part in re.split(r"[\\/]+", path) if part]


def on_windows_drive(path: Path, *, wsl: Wsl) -> bool:
    """Say whether a Linux path lies on a mounted Windows drive, where small files are slow."""
    try:
        return len(path.absolute().relative_to(wsl.mount_root).parts[0]) == 1
    except (ValueError, IndexError):
        return False
