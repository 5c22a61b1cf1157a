"""What a node finds around it, on this machine: the metadata service, its role, the store."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from localstack.imds import RoleCredentials, built_service, metadata_service, role_credentials
from localstack.minio import Credentials
from localstack.process import free_ports
from toolkit.folders import cache_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from toolkit.storage import Storage

__all__ = ["Surroundings", "surroundings"]

# Before a test gives itself another one: the metadata service takes minutes to build.
CACHE = cache_folder()


@dataclass
class Surroundings:
    """What a node finds around it.

    Attributes
    ----------
    env
        Variables that lead a process to it, and nowhere else.
    """

    folder: Path
    storage: Storage
    port: int = field(default_factory=lambda: free_ports(1)[0])

    @property
    def env(self) -> dict[str, str]:
        return {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(self.folder / "home"),
            "TOOLKIT_REHEARSAL": str(self.folder),
            "TOOLKIT_HOME": str(self.folder / "state"),
            "TOOLKIT_CACHE": str(self.folder / "cache"),
            "AWS_ENDPOINT_URL_S3": self.storage.settings.endpoint,
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": f"http://127.0.0.1:{self.port}",
            "NO_PROXY": "127.0.0.1",
        }

    def role(self, **options: Any) -> RoleCredentials:
        """Return credentials of a role, which the store accepts."""
        root = Credentials(*self.storage.settings.credentials())
        return role_credentials(self.storage.settings.endpoint, root, **options)

    @contextmanager
    def metadata(
        self, credentials: RoleCredentials | None = None, **options: Any
    ) -> Iterator[None]:
        """Run the metadata service, always at the same address; default: a role that may do all."""
        program = built_service(CACHE, log=self.folder / "metadata-build.log")
        handed_out = credentials or self.role()
        with metadata_service(program, handed_out, folder=self.folder, port=self.port, **options):
            yield


@pytest.fixture
def surroundings(storage: Storage, tmp_path: Path) -> Surroundings:
    """Return what a node finds around it; its metadata service is not running yet."""
    return Surroundings(tmp_path, storage)
