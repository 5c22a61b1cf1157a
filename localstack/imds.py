"""EC2's instance metadata service on this machine: AWS's own mock of it, built once."""

from __future__ import annotations

import json
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from localstack import go_program, probe, process
from localstack.errors import ServiceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from localstack.minio import Credentials

__all__ = [
    "INSTANCE_ID",
    "VERSION",
    "RoleCredentials",
    "built_service",
    "metadata_service",
    "role_credentials",
]

VERSION = "v1.13.0"

INSTANCE_ID = "i-1234567890abcdef0"
"""The instance that the mock speaks for."""

_MODULE = f"github.com/aws/amazon-ec2-metadata-mock/cmd/ec2-metadata-mock@{VERSION}"
_PATIENCE_SECONDS = 10
_UNTIL = "2100-01-01T00:00:00Z"
_NEVER_SECONDS = 1_000_000_000


@dataclass(frozen=True)
class RoleCredentials:
    """What an instance profile's role gives; secret and token are not shown by `repr`."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str = field(repr=False)


def built_service(cache: Path, *, log: Path) -> Path:
    """Return the mock, built first if no checkout of this user has done so yet.

    Parameters
    ----------
    cache
        The user's cache folder.
    log
        File that takes the compiler's output.

    Raises
    ------
    BuildError
        It cannot be built.
    """
    program = cache / "bin" / f"ec2-metadata-mock-{VERSION}"
    return go_program.built_program(_MODULE, program, log=log)


def role_credentials(
    endpoint: str,
    root: Credentials,
    *,
    policy: dict[str, Any] | None = None,
    valid_seconds: int = 3600,
) -> RoleCredentials:
    """Have a MinIO make temporary credentials, as AWS makes those of an instance's role.

    Parameters
    ----------
    endpoint
        URL of the MinIO.
    root
        Its root credentials.
    policy
        What the role may do, as an IAM policy; default: everything.
    valid_seconds
        How long they are valid: at least 900, as MinIO has it.
    """
    from minio.credentials.providers import AssumeRoleProvider

    made = AssumeRoleProvider(
        sts_endpoint=endpoint,
        access_key=root.access_key_id,
        secret_key=root.secret_access_key,
        duration_seconds=valid_seconds,
        policy=None if policy is None else json.dumps(policy),
    ).retrieve()
    return RoleCredentials(made.access_key, made.secret_key, made.session_token or "")


@contextmanager
def metadata_service(  # noqa: PLR0913 - what it says and where
    program: Path,
    credentials: RoleCredentials,
    *,
    folder: Path,
    port: int | None = None,
    interruption_after: int | None = None,
    values: Mapping[str, str] | None = None,
) -> Iterator[str]:
    """Give the URL of a metadata service, on loopback, that heeds IMDSv2 only.

    Parameters
    ----------
    program
        The mock.
    credentials
        What it hands out.
    folder
        Takes its configuration and its log.
    port
        Where it listens; default: a free port.
    interruption_after
        Seconds after which it tells that EC2 will terminate the instance; None: it never does.
    values
        What it says otherwise than the mock does by itself: ``ami-launch-index``, ``local-ipv4``.

    Raises
    ------
    ServiceError
        It does not answer.
    """
    port = port or process.free_ports(1)[0]
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "metadata.json"
    config.write_text(json.dumps(_config(credentials, values or {})), encoding="utf-8")
    # Untold, it interrupts at once.
    delay = _NEVER_SECONDS if interruption_after is None else interruption_after
    notice = ["spot", "--action", "terminate", "--mock-delay-sec", str(delay)]
    command = [str(program), *notice, "--imdsv2", "--config-file", str(config)]
    listen = ["--hostname", "127.0.0.1", "--port", str(port)]
    with (folder / "metadata.log").open("ab") as log:
        running = subprocess.Popen([*command, *listen], stdout=log, stderr=log)
        try:
            _wait_for(port, running)
            yield f"http://127.0.0.1:{port}"
        finally:
            running.terminate()
            running.wait()


def _config(credentials: RoleCredentials, values: Mapping[str, str]) -> dict[str, object]:
    role = {
        "Code": "Success",
        "Type": "AWS-HMAC",
        "LastUpdated": "2020-01-01T00:00:00Z",
        "AccessKeyId": credentials.access_key_id,
        "SecretAccessKey": credentials.secret_access_key,
        "Token": credentials.session_token,
        "Expiration": _UNTIL,
    }
    said = {"instance-id": INSTANCE_ID, "iam-security-credentials": role, **values}
    return {"metadata": {"values": said}}


def _wait_for(port: int, running: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not probe.listens(port):
        if running.poll() is not None or time.monotonic() > deadline:
            raise ServiceError(
                "The mock of EC2's metadata service does not answer.",
                remedy="Look at metadata.log of its folder.",
            )
        time.sleep(0.05)
