"""Rehearsals as people have them: a real bundle, the real boot script, this machine as the node."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import platformdirs
import psutil
import pytest

from localstack.instance import Instance, instance
from localstack.minio import Credentials
from toolkit.cloud.bundle import PROMOTIONS, Bundle, make_bundle
from toolkit.cloud.job import JobDescription
from toolkit.cloud.source import find_images
from toolkit.folders import cache_folder
from toolkit.models import DEFAULT_MODEL, model_spec, prepare, resolve_weights
from toolkit.profiles import load_profile
from toolkit.storage import Storage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from toolkit.cloud.aws.policy import Policy
    from toolkit.cloud.source import ImageSource
    from toolkit.profiles import Profile


@dataclass
class Here:
    """This machine standing in for EC2, as the CLI makes it."""

    storage: Storage
    folder: Path
    cache: Path
    started: list[Instance] = field(default_factory=list)

    @contextmanager
    def __call__(self, script: str, *, policy: Policy) -> Iterator[Instance]:
        settings = self.storage.settings
        with instance(
            script,
            folder=self.folder,
            endpoint=settings.endpoint,
            root=Credentials(*settings.credentials()),
            policy=json.loads(policy.to_json()),
            cache=self.cache,
        ) as machine:
            self.started.append(machine)
            yield machine

    def processes(self) -> list[psutil.Process]:
        """Return what runs below its folder, whoever has started it."""
        found = []
        for each in psutil.process_iter():
            try:
                marked = each.environ().get("TOOLKIT_REHEARSAL", "")
                if str(self.folder) in " ".join([marked, *each.cmdline()]):
                    found.append(each)
            except psutil.Error:
                continue
        return found


# --- fixtures: a module imports them -------------------------------------------------------------


@pytest.fixture(autouse=True)
def no_promotions_of_others(storage: Storage) -> None:
    """Begin with a bucket that tells which promotions a rehearsal leaves."""
    storage.delete_all(storage.location(PROMOTIONS))


@pytest.fixture(scope="module")
def aws() -> Profile:
    """Return a profile whose bucket nobody has."""
    s3 = {"bucket": "nobodys-fruits", "region": "eu-west-3"}
    return load_profile("aws", options={"s3": s3})


@pytest.fixture(scope="module")
def source(aws: Profile, mixed_folder: Path) -> ImageSource:
    return find_images(str(mixed_folder), Storage(aws.s3), limit=None)


@pytest.fixture(scope="module")
def job(aws: Profile, source: ImageSource) -> JobDescription:
    spec = model_spec(DEFAULT_MODEL)
    weights = resolve_weights(spec, "imagenet", cache=cache_folder())
    model = prepare(spec, weights, cache=cache_folder())
    return JobDescription.of(
        model,
        aws,
        images=source.uri,
        weights="imagenet",
        components=400,
        limit=10_000,
        output="s3a://nobodys-fruits/results",
    )


@pytest.fixture(scope="module")
def bundle(aws: Profile, job: JobDescription, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("rehearsal") / "bundle", job, profile=aws)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the user's home, which is empty: the caches are elsewhere."""
    caches = {
        "TOOLKIT_CACHE": cache_folder(),
        "UV_CACHE_DIR": os.environ.get("UV_CACHE_DIR") or platformdirs.user_cache_path("uv"),
    }
    for name, folder in caches.items():
        monkeypatch.setenv(name, str(folder))
    home = tmp_path / "home of the user"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    return home


@pytest.fixture
def here(storage: Storage, tmp_path: Path) -> Iterator[Here]:
    here = Here(storage, tmp_path / "my instances", cache_folder())
    yield here
    assert here.processes() == []
