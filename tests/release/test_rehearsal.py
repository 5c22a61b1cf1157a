"""Rehearsals as people have them: a real bundle, the real boot script, this machine as the node."""

from __future__ import annotations

import json
import os
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import platformdirs
import psutil
import pytest

from localstack.imds import INSTANCE_ID
from localstack.instance import Instance, instance
from localstack.minio import Credentials
from toolkit.cloud.bundle import PROMOTIONS, Bundle, make_bundle
from toolkit.cloud.job import JobDescription
from toolkit.cloud.rehearsal import REHEARSALS, rehearse
from toolkit.cloud.source import find_images
from toolkit.cloud.status import BOOT_STAGE, PromotionFolder
from toolkit.errors import JobError
from toolkit.folders import cache_folder
from toolkit.models import DEFAULT_MODEL, model_spec, prepare, resolve_weights
from toolkit.profiles import load_profile
from toolkit.progress import Silent
from toolkit.runs import Owner, RunFolder, find_run
from toolkit.storage import Storage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from toolkit.cloud.aws.policy import Policy
    from toolkit.cloud.rehearsal import Rehearsal
    from toolkit.cloud.source import ImageSource
    from toolkit.profiles import Profile

# What a developer has set, and what no instance has.
OWN = {
    "AWS_ACCESS_KEY_ID": "AKIAREHEARSALREHEARS",
    "AWS_SECRET_ACCESS_KEY": "rehearsal/rehearsal/rehearsal/rehearsal",
    "AWS_SESSION_TOKEN": "rehearsal",
    "AWS_PROFILE": "no-such-profile",
    "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
    "PYTHONPATH": "/no/such/folder",
    "SPARK_HOME": "/no/such/spark",
    "TOOLKIT_S3__BUCKET": "another",
    "MY_OWN_VARIABLE": "mine",
}

pytestmark = pytest.mark.slow


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


class Stages(Silent):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.titles: list[str] = []
        self.said: list[str] = []

    def begin(self, title: str, *, total: int | None = None) -> None:
        self.titles.append(title if total is None else f"{title}: {total}")

    def say(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture(autouse=True)
def _no_promotions_of_others(storage: Storage) -> None:
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


@pytest.mark.timeout(900)  # a cold cache of uv fetches packages for 2 GB
def test_bundle_is_rehearsed_on_a_sample_in_a_clean_environment(
    bundle, job, source, storage, here, home, monkeypatch
):
    for name, value in OWN.items():
        monkeypatch.setenv(name, value)
    stages, lines = Stages(), []
    environments: dict[str, dict[str, str]] = {}

    def look(line: str) -> None:
        lines.append(line)
        for each in here.processes():
            try:
                env = each.environ()
                if "TOOLKIT_REHEARSAL" in env:  # the metadata service is not the node's
                    environments[" ".join(each.cmdline())] = env
            except psutil.Error:
                continue

    done = rehearse(
        bundle,
        job,
        source,
        storage=storage,
        stand_in=here,
        progress=stages,
        on_line=look,
        images=13,
    )
    print("\n".join(lines))  # noqa: T201 - a failure's story

    # What it has done.
    record = done.record
    assert record == find_run(storage, record.run_id)
    assert record.status == "done"
    assert len(done.sample) == len(set(done.sample)) == record.counts.listed == 13
    origins = {
        row["origin"]
        for name in ("result", "quarantine")
        for table in RunFolder(storage, record.run_id).dataset(name).tables(columns=["origin"])
        for row in table.to_pylist()
    }
    assert origins == {f"{record.images}/{key}" for key in done.sample}
    assert {f"{source.uri}/{key}" for key in done.sample} == {
        image.origin for image in source.sample(13)
    }
    assert record.counts.quarantined == sum(key.startswith("Bad/") for key in done.sample) > 0
    assert record.labels == len({key.partition("/")[0] for key in done.sample})
    assert stages.titles[:2] == ["Images of the rehearsal: 13", BOOT_STAGE]
    assert "Features: 13" in stages.titles
    (said,) = stages.said
    assert said.startswith(f"13 images may not have {job.components} components")
    assert any("[1/5] System packages … all there" in line for line in lines)

    # Where: with a clean environment and home.
    nodes = [env for command, env in environments.items() if "-m toolkit.cloud.node" in command]
    assert nodes
    for env in environments.values():
        # PySpark gives values of its own to some.
        assert not (OWN.keys() - {"SPARK_HOME", "PYTHONPATH"}) & env.keys()
        assert not set(OWN.values()) & set(env.values())
        assert str(home) not in " ".join(env.values())
    assert {name for env in nodes for name in env if name.startswith("AWS_")} == {
        *("AWS_ENDPOINT_URL_S3", "AWS_EC2_METADATA_SERVICE_ENDPOINT"),
    }
    assert list(home.iterdir()) == []

    # What it leaves: logs, the run, the bundle.
    (machine,) = here.started
    assert machine.exit_code() == 0
    assert "boot: the end, with exit code 0" in machine.console.read_text()
    assert "[5/5]" in machine.log.read_text()
    place = machine.log.parents[2]
    assert {each.name for each in place.iterdir()} == {"console.log", "lock", "user-data", "var"}
    assert storage.folders(storage.location(REHEARSALS)) == []
    assert INSTANCE_ID in machine.log.read_text()
    assert not any(storage.objects(storage.location(PROMOTIONS)))


def test_failure_of_the_boot_script_is_told_with_the_end_of_its_log(
    bundle, job, source, storage, here
):
    def without_its_bundle(script: str, *, policy: Policy) -> AbstractContextManager[Instance]:
        return here(script.replace(bundle.identity, "0" * 64), policy=policy)

    with pytest.raises(JobError) as failed:
        rehearsed(bundle, job, source, storage=storage, stand_in=without_its_bundle)
    reason = "The rehearsal failed: The node ended with exit code 1 while fetching the bundle."
    assert failed.value.message.startswith(reason)
    assert "  | " in failed.value.message
    assert "manifest.json: no answer but 404" in failed.value.message
    (machine,) = here.started
    assert str(machine.log) in failed.value.remedy
    assert machine.log.is_file()


def test_boot_script_that_ends_without_a_word_is_not_waited_for(bundle, job, source, storage, here):
    def silent(_: str, *, policy: Policy) -> AbstractContextManager[Instance]:
        log = '"$TOOLKIT_REHEARSAL"/var/log/fruits-toolkit.log'
        script = f"#!/bin/bash\necho quite broken >{log}\nexit 7\n"
        return here(script, policy=policy)

    began = time.monotonic()
    with pytest.raises(JobError, match="script ended with exit code 7") as failed:
        rehearsed(bundle, job, source, storage=storage, stand_in=silent)
    assert "\n  | quite broken" in failed.value.message
    assert time.monotonic() - began < 60


def test_interrupt_ends_the_node_and_removes_what_it_had(bundle, job, source, storage, here):
    def interrupt(line: str) -> None:
        if "[1/5]" in line:  # in the midst of bootstrap.sh
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rehearsed(bundle, job, source, storage=storage, stand_in=here, on_line=interrupt)
    assert here.processes() == []
    assert not any(storage.objects(storage.location(REHEARSALS)))
    assert not any(storage.objects(storage.location(PROMOTIONS)))


def test_rehearsals_of_dead_processes_are_removed_and_those_that_go_on_are_not(
    bundle, job, source, storage, here
):
    gone = replace(Owner.this_process(), started=1.0)
    for name, owner in {"gone": gone, "going-on": Owner.this_process()}.items():
        place = storage.location(REHEARSALS, name)
        storage.write(place / "owner.json", json.dumps(asdict(owner)).encode())
        storage.write(place / "images" / "1.jpg", b"image")
        storage.write(PromotionFolder(storage, name).file("status.json"), b"{}")
    storage.write(storage.location(REHEARSALS, "half", "images", "1.jpg"), b"image")

    def none(script: str, *, policy: Policy) -> AbstractContextManager[Instance]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rehearsed(bundle, job, source, storage=storage, stand_in=none)
    assert storage.folders(storage.location(REHEARSALS)) == ["going-on"]
    assert storage.folders(storage.location(PROMOTIONS)) == ["going-on"]
    storage.delete_all(storage.location(REHEARSALS))
    storage.delete_all(storage.location(PROMOTIONS))


def rehearsed(*what: Any, on_line: Callable[[str], None] = print, **how: Any) -> Rehearsal:
    return rehearse(*what, **how, progress=Silent(), on_line=on_line, images=4)
