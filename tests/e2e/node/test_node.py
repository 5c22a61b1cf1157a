"""A node's work, as a process of its own: real Spark, the store, AWS's own mock of its metadata."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.node_surroundings import Surroundings, surroundings
from tests.support.store_gate import Gate, gate_before
from tests.support.waiting import eventually
from toolkit.cloud.aws.account import Identity
from toolkit.cloud.aws.policy import node_policy
from toolkit.cloud.follow import follow, release_run
from toolkit.cloud.job import JOB, JobDescription
from toolkit.cloud.status import BOOT_STAGE, PromotionFolder, Stage, Status
from toolkit.errors import JobError
from toolkit.profiles import load_profile
from toolkit.progress import Silent
from toolkit.runs import RunRecord, find_run, new_run_id
from toolkit.storage import Location

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from toolkit.models import PreparedModel
    from toolkit.storage import Storage

__all__ = ["surroundings"]  # a fixture

NODE = "i-0123456789abcdef0"
# So many that the half of them are some parts, which are done before the gate closes.
MANY = 500

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


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

    def followed(self, **options: Any) -> Status:
        return follow(
            self.folder,
            progress=Silent(),
            on_line=self.lines.append,
            **{"poll_seconds": 0.2, "boot_seconds": 120} | options,
        )

    def is_featurizing(self) -> bool:
        status = self.folder.status()
        return status is not None and any(stage.done for stage in status.stages)


@pytest.fixture(scope="module")
def few(storage: Storage, sample_files: list[Path], bad_files: dict[str, bytes]) -> Location:
    """Return where two dozen images and three bad files are."""
    where = storage.location("images", "of-the-node", "few")
    for file in sample_files:
        storage.upload(file, where / file.parent.name / file.name)
    for name, content in bad_files.items():
        storage.write(where / "Bad" / name, content)
    return where


@pytest.fixture
def many(storage: Storage, sample_files: list[Path]) -> Iterator[Location]:
    """Return where the same two dozen images are, again and again; a run of no other test."""
    where = storage.location("images", "of-the-node", new_run_id())
    for number in range(MANY):
        file = sample_files[number % len(sample_files)]
        storage.upload(file, where / file.parent.name / f"{number}.jpg")
    yield where
    storage.delete_all(where)


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


@pytest.fixture
def gate(storage: Storage, many: Location) -> Iterator[Gate]:
    """Give a gate that no job on the many images gets through."""
    with gate_before(storage, many, let_through=MANY // 2) as gate:
        yield gate


def test_job_is_done_and_its_record_and_log_are_in_the_bucket(begin, few, surroundings, model):
    output = Location(few.bucket, f"results/{new_run_id()}")
    node = begin(few, components=5, output=output.uri)
    may = node_policy(
        Identity("123456789012", "arn:aws:iam::123456789012:user/ann"),
        region="us-east-1",
        bucket=few.bucket,
        promotion=node.folder.promotion_id,
        output=output,
        has_secret=False,
    )
    role = surroundings.role(policy=json.loads(may.to_json()))
    booting = Status("booting", NODE, stages=(Stage(BOOT_STAGE),))
    node.folder.report(booting)
    node.log.write_text("the boot script was here\n")
    with surroundings.metadata(role), node.working() as process:
        last = node.followed()
        assert process.wait(timeout=120) == 0

    assert (last.phase, last.error, last.notice) == ("done", None, None)
    assert last.began_at == booting.began_at
    titles = [stage.title for stage in last.stages]
    assert titles[0] == BOOT_STAGE
    assert titles[-3:] == ["Features", "PCA", "Result"]
    assert all(stage.seconds is not None for stage in last.stages)
    features = next(stage for stage in last.stages if stage.title == "Features")
    assert (features.done, features.total) == (27, 27)

    storage = node.folder.storage
    record = RunRecord.from_json(storage.read(node.folder.file("result.json")))
    assert record == find_run(storage, last.run_id)
    assert (record.status, record.profile, record.components) == ("done", "aws", 5)
    assert (record.counts.featurized, record.counts.quarantined) == (24, 3)
    # The log is the boot script's, ours and Spark's, and all of it is shipped.
    assert node.lines[0] == "the boot script was here"
    assert any("Features: 27" in line for line in node.lines)
    assert any(" WARN " in line for line in node.lines)
    assert node.lines[-1].endswith("The work of this node has ended: done.")
    assert "\n".join(node.lines) + "\n" == node.log.read_text()

    # Nothing was converted or downloaded: the network is the bundle's, and nothing else is there.
    cache = surroundings.folder / "cache"
    assert [path.name for path in cache.iterdir()] == ["prepared"]
    assert [path.name for path in (cache / "prepared").iterdir()] == [model.key]


def test_weights_that_were_a_file_of_the_laptop_are_not_looked_for(begin, few, surroundings, model):
    node = begin(few, weights="/home/ann/mine.keras", components=5)
    with surroundings.metadata(), node.working() as process:
        last = node.followed()
        assert process.wait(timeout=120) == 0
    assert (last.phase, last.error) == ("done", None)
    record = find_run(node.folder.storage, last.run_id)
    assert record.weights == f"sha256:{model.weights_sha256}"
    assert record.weights_sha256 == model.weights_sha256
    assert (record.engine, record.input_size) == (model.engine, model.input_size)
    assert [path.name for path in (surroundings.folder / "cache").iterdir()] == ["prepared"]


def test_run_that_fails_is_reported_with_its_reason(begin, surroundings):
    node = begin(Location("no-such-bucket-anywhere", "images"))
    with surroundings.metadata(), node.working() as process:
        last = node.followed()
        assert process.wait(timeout=120) == 1
    assert last.phase == "failed"
    assert "no-such-bucket-anywhere" in last.error
    assert last.stages[-1].seconds is not None
    assert last.run_id is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [("{}", "no description of a job"), (None, "job.json does not exist")],
)
def test_job_that_cannot_be_read_is_reported(begin, few, surroundings, storage, text, problem):
    node = begin(few)
    if text is None:
        storage.delete_all(node.folder.file(JOB))
    else:
        storage.write(node.folder.file(JOB), text.encode())
    with surroundings.metadata(), node.working() as process:
        last = node.followed()
        assert process.wait(timeout=120) == 1
    assert last.phase == "failed"
    assert problem in last.error


def test_defect_of_ours_is_reported_as_well_with_its_traceback(begin, few, surroundings, model):
    node = begin(few)
    job = json.loads(node.folder.storage.read(node.folder.file(JOB)))
    job["limit"] = "many"  # what no check has foreseen
    node.folder.storage.write(node.folder.file(JOB), json.dumps(job).encode())
    with surroundings.metadata(), node.working() as process:
        last = node.followed()
        assert process.wait(timeout=120) == 1
    assert last.phase == "failed"
    assert last.error.startswith("TypeError: ")
    assert any(line.startswith("Traceback") for line in node.lines)


def test_stopped_node_ends_its_run_and_the_next_one_goes_on_from_there(
    begin, many, gate, surroundings
):
    node = begin(many, gate=gate)
    with surroundings.metadata(), node.working() as process:
        eventually(node.is_featurizing)
        node.folder.ask_to_stop()
        last = node.followed()
        assert process.wait(timeout=120) == 1
    assert last.phase == "stopped"
    assert "--resume" in last.remedy
    stopped = find_run(node.folder.storage, last.run_id)
    assert stopped.status == "failed"
    assert stopped.error == last.error

    again = begin(many)
    with surroundings.metadata(), again.working():
        last = again.followed()
    assert (last.phase, last.run_id) == ("done", stopped.run_id)
    record = find_run(node.folder.storage, last.run_id)
    assert record.counts.featurized == MANY
    done_here = record.images_per_second * record.seconds["features"]
    assert done_here < MANY - 40  # the others were there


def test_node_that_ec2_takes_back_says_so_and_ends(begin, many, gate, surroundings):
    node = begin(many, gate=gate)
    role = surroundings.role()
    with node.working() as process:
        with surroundings.metadata(role):
            eventually(node.is_featurizing)
        with surroundings.metadata(role, interruption_after=0):
            last = node.followed()
            assert process.wait(timeout=120) == 1
    assert last.phase == "interrupted"
    assert last.notice.startswith("EC2 will terminate this instance at 20")
    assert last.error == last.notice


def test_node_whose_machine_shuts_down_says_so(begin, many, gate, surroundings):
    node = begin(many, gate=gate)
    with surroundings.metadata(), node.working() as process:
        eventually(node.is_featurizing)
        os.killpg(process.pid, signal.SIGTERM)  # as systemd does, to all of a service
        last = node.followed()
        assert process.wait(timeout=120) == 1
    assert last.phase == "interrupted"
    assert last.error == "The machine ends this node (SIGTERM)"


def test_node_that_dies_is_noticed_and_another_one_goes_on(begin, many, gate, surroundings):
    node = begin(many, gate=gate)
    with surroundings.metadata(), node.working() as process:
        eventually(lambda: node.is_featurizing() and node.folder.status().run_id is not None)
        os.killpg(process.pid, signal.SIGKILL)
        with pytest.raises(JobError, match="is dead: it has been silent for"):
            node.followed(silent_seconds=3)
    assert node.folder.status().phase == "running"
    assert not node.log.with_name(f"{node.log.name}.final").exists()
    assert any("Features" in line for line in node.lines)

    run_id = release_run(node.folder)
    assert find_run(node.folder.storage, run_id).status == "failed"
    again = begin(many)
    with surroundings.metadata(), again.working():
        assert again.followed().run_id == run_id


def test_promotion_must_be_one(surroundings, tmp_path):
    command = [sys.executable, "-m", "toolkit.cloud.node", "--log", tmp_path / "log"]
    refused = subprocess.run(
        [*command, "--promotion", "s3://fruits/somewhere/else"],
        env=surroundings.env | {"PYTHONPATH": os.environ.get("PYTHONPATH", "")},
        cwd=tmp_path,
        check=False,
    )
    assert refused.returncode == 2
    assert "s3://fruits/somewhere/else is no promotion." in (tmp_path / "log").read_text()
