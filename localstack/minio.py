"""MinIO, the S3 of this machine: built once, started with credentials of its own."""

from __future__ import annotations

import os
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from localstack import probe, process
from localstack.errors import ServiceError
from localstack.go_program import built_program

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from localstack.home import StackSettings

__all__ = [
    "REGION",
    "VERSION",
    "Credentials",
    "binary",
    "built_binary",
    "credentials",
    "ensure_bucket",
    "healthy",
    "start",
]

VERSION = "v0.0.0-20260212201848-7aac2a2c5b7c"
"""The last community commit whose build we tested; MinIO publishes its source alone."""

REGION = "us-east-1"
"""The region that MinIO answers for when it is told no other."""

_MODULE = f"github.com/minio/minio@{VERSION}"


@dataclass(frozen=True)
class Credentials:
    """Root credentials of a MinIO; the secret is not shown by `repr`."""

    access_key_id: str
    secret_access_key: str = field(repr=False)


def binary(cache: Path) -> Path:
    """Return where the pinned MinIO lies once it is built."""
    return cache / "bin" / f"minio-{VERSION}"


def built_binary(cache: Path, *, log: Path, say: Callable[[str, float | None], None]) -> Path:
    """Return the pinned MinIO, built first if no checkout of this user has done so yet.

    Parameters
    ----------
    cache
        Cache folder that all checkouts share.
    log
        File that takes the compiler's output.
    say
        Takes what happens and how long it took, in seconds (None: it begins).

    Raises
    ------
    BuildError
        Go or MinIO's modules cannot be fetched, or the build fails.
    """
    program = binary(cache)
    if program.exists():
        return program
    began = time.monotonic()
    say("Building MinIO, once for this user: 3 to 10 minutes", None)
    built_program(_MODULE, program, log=log)
    say("MinIO is built", time.monotonic() - began)
    return program


def credentials(home: Path) -> Credentials | None:
    """Return the root credentials of a stack's MinIO; None before its first start."""
    try:
        text = _credentials_file(home).read_text(encoding="ascii")
    except FileNotFoundError:
        return None
    values = dict(line.split("=", 1) for line in text.splitlines())
    return Credentials(values["MINIO_ROOT_USER"], values["MINIO_ROOT_PASSWORD"])


def _credentials_file(home: Path) -> Path:
    return home / "minio" / "credentials.env"


def _made_credentials(home: Path) -> Credentials:
    known = credentials(home)
    if known is not None:
        return known
    made = Credentials(f"local-{secrets.token_hex(6)}", secrets.token_urlsafe(30))
    file = _credentials_file(home)
    file.parent.mkdir(parents=True, exist_ok=True)
    # Born with its mode, and in place only when complete: never readable by others, never half.
    unfinished = file.with_suffix(".new")
    with suppress(FileNotFoundError):
        unfinished.unlink()
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as out:
        out.write(f"MINIO_ROOT_USER={made.access_key_id}\n")
        out.write(f"MINIO_ROOT_PASSWORD={made.secret_access_key}\n")
    unfinished.replace(file)
    return made


def start(program: Path, *, settings: StackSettings, ports: dict[str, int]) -> process.Daemon:
    """Start MinIO on loopback; it may not answer yet.

    Parameters
    ----------
    program
        The MinIO binary.
    settings
        Where its data, record and log go.
    ports
        ``minio_port`` and ``minio_console_port``.
    """
    home = settings.home
    _made_credentials(home)
    _data(home).mkdir(parents=True, exist_ok=True)
    command: list[str | Path] = [program, "server"]
    command += ["--address", f"127.0.0.1:{ports['minio_port']}"]
    command += ["--console-address", f"127.0.0.1:{ports['minio_console_port']}"]
    command += ["--certs-dir", home / "minio" / "certs"]  # else it makes ~/.minio
    return process.start(
        [*command, _data(home)],
        env=process.inherited_environment()
        | {"MINIO_CONFIG_ENV_FILE": str(_credentials_file(home)), "MINIO_UPDATE": "off"},
        home=home,
        record=settings.record("minio"),
        log=settings.log("minio"),
        ports=ports,
    )


def _data(home: Path) -> Path:
    return home / "minio" / "data"


def healthy(port: int) -> bool:
    """Say whether MinIO answers at a port that it is alive."""
    return probe.get(port, "/minio/health/live") is not None


def ensure_bucket(settings: StackSettings, *, port: int) -> None:
    """Make the stack's bucket if it is not there.

    Parameters
    ----------
    settings
        The bucket's name and where the credentials lie.
    port
        Port of the running MinIO.

    Raises
    ------
    ServiceError
        MinIO refuses: the name is no bucket name, or the disk is full.
    """
    # A bucket is a folder of the data folder. Looking there saves `up` of a running stack the
    # import of the client, which is most of its time.
    if (_data(settings.home) / settings.bucket).is_dir():
        return
    import minio
    import urllib3

    root = _made_credentials(settings.home)
    # With credentials and a region given, the client reads neither AWS_* nor ~/.aws.
    client = minio.Minio(
        endpoint=f"127.0.0.1:{port}",
        access_key=root.access_key_id,
        secret_key=root.secret_access_key,
        region=REGION,
        secure=False,
    )
    try:
        if not client.bucket_exists(bucket_name=settings.bucket):
            client.make_bucket(bucket_name=settings.bucket)
    except (minio.S3Error, ValueError, urllib3.exceptions.HTTPError) as exc:
        raise ServiceError(
            f"MinIO does not make the bucket {settings.bucket!r}: {exc}",
            remedy="Bucket names have 3 to 63 lower-case letters, digits, '.' and '-'.",
        ) from exc
