"""Nodes with a bundle and a job: as processes of their own, or in this one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from toolkit.cloud.follow import FollowLimits, follow
from toolkit.cloud.job import JOB, JobDescription
from toolkit.cloud.status import PromotionFolder, Status
from toolkit.profiles import load_profile
from toolkit.progress import Silent
from toolkit.runs import new_run_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.node_surroundings import Surroundings
    from tests.support.store_gate import Gate
    from toolkit.models import PreparedModel
    from toolkit.storage import Location, Storage

NODE = "i-0123456789abcdef0"
LIMITS = FollowLimits(boot=120, poll=0.2)
"""For a node on a machine that others use, too."""


@dataclass
class Node:
    """A node that has its bundle and its job."""

    folder: PromotionFolder
    bundle: Path
    surroundings: Surroundings
    gate: Gate | None = None
    lines: list[str] = field(default_factory=list)
    options: tuple[str, ...] = ()

    @property
    def log(self) -> Path:
        return self.surroundings.folder / "fruits-toolkit.log"

    @contextmanager
    def working(self) -> Iterator[subprocess.Popen[bytes]]:
        """Give the running process; what it prints before the log is open comes to us."""
        uri = f"s3://{self.folder.location.bucket}/{self.folder.location.key}/"
        command = [sys.executable, "-m", "toolkit.cloud.node", "--promotion", uri]
        options = ["--node", NODE, "--bundle", self.bundle, "--log", self.log]
        # A session of its own: what a dead node leaves running is found by it.
        with subprocess.Popen(
            [*command, *options, *self.options],
            env=self.env,
            cwd=self.surroundings.folder,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        ) as process:
            try:
                yield process
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)

    @property
    def env(self) -> dict[str, str]:
        # As many cores as this machine has, at least two.
        kept = {
            name: os.environ[name] for name in ("PYTHONPATH", "JAVA_HOME") if name in os.environ
        }
        gate = {"AWS_ENDPOINT_URL_S3": self.gate.url} if self.gate else {}
        return self.surroundings.env | kept | gate | {"TOOLKIT_SPARK__MASTER": "local[2]"}

    def followed(self, limits: FollowLimits = LIMITS) -> Status:
        return follow(self.folder, progress=Silent(), on_line=self.lines.append, limits=limits)

    def is_featurizing(self) -> bool:
        status = self.folder.status()
        return status is not None and any(stage.done for stage in status.stages)


# --- fixtures: a folder's conftest.py imports them -----------------------------------------------


@pytest.fixture
def begin(
    storage: Storage, surroundings: Surroundings, model: PreparedModel
) -> Callable[..., Node]:
    """Return a function that prepares a promotion and its node, up to the hand-over."""
    bundle = surroundings.folder / "opt"
    unpacked = bundle / "models" / "prepared" / model.key
    unpacked.mkdir(parents=True)
    for name in model.files:
        unpacked.joinpath(name).write_bytes(Path(model.folder, name).read_bytes())
    options = {"s3": {"bucket": storage.settings.bucket, "region": storage.settings.region}}
    profile = load_profile("aws", options=options)

    def call(images: Location, *, gate: Gate | None = None, **changes: Any) -> Node:
        folder = PromotionFolder(storage, new_run_id())
        job = JobDescription.of(model, profile, images=images.uri, weights="imagenet")
        storage.write(folder.file(JOB), replace(job, **changes).to_json().encode())
        return Node(folder, bundle, surroundings, gate)

    return call
