"""What must not leave this machine: credentials, local paths and local endpoints in a bundle."""

from __future__ import annotations

import ipaddress
import os
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, SecretStr

from toolkit.cloud.job import NODE_FOLDER
from toolkit.errors import RequestError
from toolkit.folders import cache_folder, state_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from toolkit.profiles import Profile

__all__ = ["Leak", "find_leaks", "refuse_leaks"]

# The least that AWS makes: 16 characters of an access key id (IAM's reference, AccessKey), 40 of a
# secret. In code a shorter value can't be told from a word.
_LEAST_IN_CODE = 16
# The shortest secret that MinIO takes; in data, all of which we have written, it is no coincidence.
_LEAST_IN_DATA = 8
# A region, a bucket, a file's name (AWS_WEB_IDENTITY_TOKEN_FILE) are no secrets.
_SECRET_VARIABLE = re.compile(
    r"(AWS|TOOLKIT_S3_)_\w*(KEY|SECRET|TOKEN|PASSWORD)\w*(?<!_FILE)", re.ASCII | re.IGNORECASE
)
_CREDENTIALS = {
    "an AWS access key id": re.compile(r"(?<![A-Z0-9])(AKIA|ASIA)[A-Z0-9]{16}(?![A-Z0-9])"),
    "an AWS secret": re.compile(r"(?i)(secret_?access_?key|session_?token)\W{1,5}[a-z0-9/+=]{40}"),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
}
# Folders that a node has as well, and that code may name.
_ON_EVERY_MACHINE = frozenset({"/", "/root", "/tmp", "/var/tmp", NODE_FOLDER})  # noqa: S108
_NAMES_BEFORE = r"(?<![\w.:/~-])"  # not within a longer path or a URI
_NAMES_AFTER = r"(?![\w.-])"
# Somebody's home, on Linux, macOS and Windows.
_HOMES = re.compile(rf"{_NAMES_BEFORE}(/home/|/Users/|[A-Za-z]:\\{{1,2}}Users\\{{1,2}})[\w.-]+")
# The top of the file system (hier(7)), what leads home, Windows' drives.
_TOPS = (
    "bin|boot|dev|etc|home|lib|lib64|media|mnt|opt|private|proc|root|run|sbin|srv|sys|tmp|usr|var"
    "|Users|Volumes"
)
_ABSOLUTE = re.compile(
    rf"{_NAMES_BEFORE}(/({_TOPS}){_NAMES_AFTER}|~[\w.-]*/|[A-Za-z]:(\\\\?|/)\w)|file:/"
)
_HOST = r"(localhost|host\.docker\.internal|\[::1\]|(\d{1,3}\.){3}\d{1,3})"
_ENDPOINT_IN_CODE = re.compile(rf"https?://(?P<host>{_HOST}):\d+")
_ENDPOINT_IN_DATA = re.compile(rf"(?<![\w.-])(?P<host>{_HOST})(?![\w.-])(?P<port>:\d+)?")


@dataclass(frozen=True, slots=True)
class Leak:
    """Something that must not leave this machine: in which file and line, and what. No secret.

    The line is None in a file that is no text.
    """

    file: str
    line: int | None
    what: str

    def __str__(self) -> str:
        return f"{self.file}{f', line {self.line}' if self.line else ''}: {self.what}"


def find_leaks(folder: Path, *, profile: Profile) -> list[Leak]:
    """Look for credentials, local paths and local endpoints, in all files and the wheels' members.

    There are three kinds of text. *Code* (``.py``, ``.sh``, ``.html``) may speak of localhost and
    ``/tmp``: in it a URL of a local host with a port is a leak, and so are somebody's home and the
    toolkit's folders on this machine. The *README* in a wheel's METADATA shows people such URLs: in
    it only these folders are looked for. Anything else is *data*, which has no reason to name a
    local host or an absolute path at all. The values of this machine's credentials are looked for
    in every file, also in one that is no text, and what has the form of some in every text.

    But for this machine's values the rules are of form only: they find the same everywhere, and a
    bundle of an unchanged checkout has nothing for them. No remark in a file exempts it.

    Parameters
    ----------
    folder
        A bundle's folder, or any other.
    profile
        Its secrets are looked for, and those of ``AWS_…`` and ``TOOLKIT_S3__…`` variables.
    """
    secrets, folders = _secrets(profile), _own_folders()
    return [
        leak
        for name, content in _contents(folder)
        for leak in _leaks(name, content, secrets=secrets, folders=folders)
    ]


def refuse_leaks(folder: Path, *, profile: Profile) -> None:
    """Raise a RequestError that names everything that `find_leaks` finds, if it finds something."""
    if leaks := find_leaks(folder, profile=profile):
        raise RequestError(
            "The bundle would carry what must stay on this machine:\n"
            + "\n".join(f"  {leak}" for leak in leaks),
            remedy="Take it out of the files named; those of a wheel lie in the checkout. "
            "Replace a key that has stood in one.",
        )


def _secrets(profile: Profile) -> dict[str, str]:
    """Return the values that nobody may see, by their names."""
    found = {name: value for name, value in os.environ.items() if _SECRET_VARIABLE.fullmatch(name)}
    for section, settings in profile:
        for name, value in settings if isinstance(settings, BaseModel) else ():
            if isinstance(value, SecretStr):
                found[f"{section}.{name} of the profile"] = value.get_secret_value()
    return found


def _own_folders() -> list[str]:
    """Return the folders of this machine that a bundle has no reason to name."""
    folders = [Path.home(), Path(__file__).parents[2], cache_folder(), state_folder()]
    names = {str(each) for folder in folders for each in (folder, folder.resolve())}
    return sorted(names - _ON_EVERY_MACHINE)


def _contents(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if path.suffix != ".whl":
            yield name, path.read_bytes()
            continue
        with zipfile.ZipFile(path) as wheel:
            for member in wheel.namelist():
                yield f"{name}: {member}", wheel.read(member)


def _leaks(
    name: str, content: bytes, *, secrets: dict[str, str], folders: list[str]
) -> Iterator[Leak]:
    is_readme = name.endswith(".dist-info/METADATA")
    is_code = name.endswith((".py", ".sh", ".html"))
    least = _LEAST_IN_CODE if is_code or is_readme else _LEAST_IN_DATA
    try:
        text = content.decode()
    except UnicodeDecodeError:
        for secret, value in secrets.items():
            if len(value) >= _LEAST_IN_CODE and value.encode() in content:
                yield Leak(name, None, f"the value of {secret}")
        return

    def leak(what: str, position: int) -> Leak:
        return Leak(name, text.count("\n", 0, position) + 1, what)

    for secret, value in secrets.items():
        if len(value) >= least and (at := text.find(value)) >= 0:
            yield leak(f"the value of {secret}", at)
    for what, form in _CREDENTIALS.items():
        if match := form.search(text):
            yield leak(what, match.start())
    for folder in folders:
        if match := re.search(_NAMES_BEFORE + re.escape(folder) + _NAMES_AFTER, text):
            yield leak(f"the folder {folder} of this machine", match.start())
    if is_readme:
        return
    if match := (_HOMES if is_code else _ABSOLUTE).search(text):
        yield leak(f"a local path that begins with {match[0]}", match.start())
    endpoints = (_ENDPOINT_IN_CODE if is_code else _ENDPOINT_IN_DATA).finditer(text)
    if match := next(filter(_is_local, endpoints), None):
        yield leak(f"the local endpoint {match[0]}", match.start())


def _is_local(endpoint: re.Match[str]) -> bool:
    host = endpoint["host"].strip("[]")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return not host[0].isdigit()  # a name; 999.9.9.9 is a version
    if address.is_loopback or address.is_unspecified:
        return True
    # 10.3.9.90 alone is some package's version.
    is_in_url = endpoint.string.endswith(("://", "@"), 0, endpoint.start("host"))
    return address.is_private and (is_in_url or endpoint.groupdict().get("port") is not None)
