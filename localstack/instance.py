"""The stand-in for an EC2 instance: a boot script, run on this machine in a clean environment.

Nothing of it needs root rights. What the script puts into ``/opt`` and ``/var/log`` of an instance
lies in a folder here, which stands for ``/``; the metadata service that it asks is AWS's own mock
of it, and the credentials that this hands out are limited to the node's policy by MinIO.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import platformdirs
import psutil

from localstack import imds, process
from localstack.errors import MissingProgramError
from localstack.java import find_java

if TYPE_CHECKING:
    from collections.abc import Iterator

    from localstack.minio import Credentials

__all__ = ["Instance", "instance"]

# The script asks this variable: it is set in a rehearsal alone, and names what stands for `/`.
_ROOT = "TOOLKIT_REHEARSAL"
_LOG = "var/log/fruits-toolkit.log"
_CONSOLE = "console.log"
_LOCK = "lock"
# Of the folder that stands for `/`, what is gone when the instance is.
_OF_THE_MACHINE = ("opt", "root", "metadata")

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# What this machine needs to reach the package servers, and an instance does not.
_NETWORK = (
    *("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
    *("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST"),
    *("UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "UV_INSECURE_HOST", "UV_SYSTEM_CERTS"),
)
# In order to fetch anything at all, the script has these installed, which takes root rights.
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
# Six hours, as AWS gives to a role; a slow line may take one for the packages.
_CREDENTIALS_SECONDS = 6 * 3600
# Until what was asked to end is killed: the node writes a last status meanwhile.
_GRACE_SECONDS = 20.0


@dataclass(frozen=True)
class Instance:
    """A machine that stands in for an EC2 instance, while its boot script runs.

    Attributes
    ----------
    process
        The boot script. It leads a session of its own.
    log
        File with all that is said on the node; it stays until the next instance begins.
    console
        File with what EC2 would show as the instance's console; it stays as well.
    """

    process: subprocess.Popen[bytes]
    log: Path
    console: Path

    def exit_code(self) -> int | None:
        """Return the boot script's exit code; None while it runs."""
        return self.process.poll()


@contextmanager
def instance(  # noqa: PLR0913 - what an instance is, and where it stands
    script: str,
    *,
    folder: Path,
    endpoint: str,
    root: Credentials,
    policy: dict[str, Any],
    cache: Path,
    interruption_after: int | None = None,
) -> Iterator[Instance]:
    """Run a boot script as EC2 runs user-data, but as this user, below a folder.

    At the end of the block, or when it raises, Ctrl-C included, everything that the instance has
    started is ended. Should this process be killed, the script is told to end, and what is left
    is removed by the next call with the same folder.

    Parameters
    ----------
    script
        The user-data.
    folder
        Takes a folder for each instance that runs. Its logs stay in there until the next call;
        several calls at once do not meet.
    endpoint
        URL of the MinIO that stands in for S3.
    root
        Its root credentials.
    policy
        What the instance's role may do, as an IAM policy.
    cache
        The user's cache folder, which has the metadata service's program.
    interruption_after
        Seconds after which EC2 is to announce the instance's end; None: never.

    Raises
    ------
    MissingProgramError
        curl, the system's certificates or Java are missing: a rehearsal installs nothing.
    BuildError
        The metadata service can't be built.
    ServiceError
        It does not answer.
    """
    _check_programs()
    folder.mkdir(parents=True, exist_ok=True)
    program = imds.built_service(cache, log=folder / "metadata-build.log")
    role = imds.role_credentials(endpoint, root, policy=policy, valid_seconds=_CREDENTIALS_SECONDS)
    with ExitStack() as exits:
        place = exits.enter_context(_fresh_place(folder))
        metadata = exits.enter_context(
            imds.metadata_service(
                program, role, folder=place / "metadata", interruption_after=interruption_after
            )
        )
        env = _environment(place, endpoint=endpoint, metadata=metadata)
        yield exits.enter_context(_running(script, place, env=env))


def _check_programs() -> None:
    missing = [] if shutil.which("curl", path=_PATH) else ["curl"]
    if not _CERTIFICATES.is_file():
        missing.append("ca-certificates")
    if missing:
        raise MissingProgramError(
            f"This machine lacks {' and '.join(missing)}, which an instance's boot script needs.",
            remedy=f"sudo apt-get install -y {' '.join(missing)}",
        )


@contextmanager
def _fresh_place(folder: Path) -> Iterator[Path]:
    """Give a new folder that stands for ``/``, and remove those that nobody holds any more."""
    with process.locked(folder / _LOCK):
        for left in folder.iterdir():
            if left.is_dir() and (unused := _held(left)):
                with unused:
                    _kill(left)
                    shutil.rmtree(left, ignore_errors=True)
        place = Path(tempfile.mkdtemp(dir=folder, prefix="instance-"))
        held = _held(place)
    try:
        for name in (*_OF_THE_MACHINE, Path(_LOG).parent):
            (place / name).mkdir(parents=True)
        yield place
    finally:
        for name in _OF_THE_MACHINE:  # gigabytes of packages
            shutil.rmtree(place / name, ignore_errors=True)
        if held:
            held.close()


def _held(place: Path) -> IO[bytes] | None:
    """Hold a folder until the file is closed or we die; None if somebody does."""
    file = (place / _LOCK).open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def _environment(place: Path, *, endpoint: str, metadata: str) -> dict[str, str]:
    """Return all that the boot script is told: of this user's own variables next to nothing."""
    own = {
        # The toolkit's own Python stands in for the system's: it is one that fits.
        "PATH": f"{sys.base_prefix}/bin:{_PATH}",
        "JAVA_HOME": str(find_java().home),
        "HOME": str(place / "root"),
        _ROOT: str(place),
        "AWS_ENDPOINT_URL_S3": endpoint,
        "AWS_EC2_METADATA_SERVICE_ENDPOINT": metadata,
        # The one thing of the user's home: the packages of 2 GB are not downloaded again. uv
        # compares what it takes from there with the hashes of the lock, as it does downloads.
        "UV_CACHE_DIR": os.environ.get("UV_CACHE_DIR") or str(platformdirs.user_cache_path("uv")),
    }
    not_by_proxy = {
        name: ",".join(filter(None, [os.environ.get(name), "127.0.0.1"]))
        for name in ("no_proxy", "NO_PROXY")
    }
    network = {name: os.environ[name] for name in _NETWORK if os.environ.get(name)}
    return own | network | not_by_proxy


@contextmanager
def _running(script: str, place: Path, *, env: dict[str, str]) -> Iterator[Instance]:
    program = place / "user-data"
    program.write_text(script, encoding="utf-8")
    program.chmod(0o700)
    console = place / _CONSOLE
    with console.open("wb") as out:
        running = subprocess.Popen(
            # If this process is killed, the script gets the signal that ends a node.
            ["setpriv", "--pdeathsig", "TERM", program],
            env=env,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield Instance(running, place / _LOG, console)
    finally:
        _end(running, place)


def _end(running: subprocess.Popen[bytes], place: Path) -> None:
    """End the script as a machine that goes off does: with some time for last words."""
    try:
        if running.poll() is None:
            # All of the group: bash heeds no signal while it waits for a program in front.
            os.killpg(running.pid, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                running.wait(_GRACE_SECONDS)
    finally:
        _kill(place)
        running.wait()


def _kill(place: Path) -> None:
    """Kill every process of an instance, in whatever session it is."""
    while found := [each for each in psutil.process_iter() if _belongs(each, place)]:
        for each in found:
            with suppress(psutil.Error):
                each.kill()
        psutil.wait_procs(found, timeout=1)


def _belongs(candidate: psutil.Process, place: Path) -> bool:
    try:
        # The metadata service is not the script's child, but lives for it alone.
        return (
            os.fsencode(f"{_ROOT}={place}") in process.environment_of(candidate.pid)
            or str(place / "metadata" / "metadata.json") in candidate.cmdline()
        )
    except (OSError, psutil.Error):  # it has ended, or is another user's
        return False
