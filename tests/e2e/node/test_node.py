"""A node's work, as a process of its own: real Spark, the store, AWS's own mock of its metadata."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.support.nodes import LIMITS, NODE
from tests.support.store_gate import Gate, gate_before
from tests.support.waiting import eventually
from toolkit.cloud.aws.account import Identity
from toolkit.cloud.aws.policy import node_policy
from toolkit.cloud.follow import release_run
from toolkit.cloud.status import BOOT_STAGE, Stage, Status
from toolkit.errors import JobError
from toolkit.runs import RunRecord, find_run, new_run_id
from toolkit.storage import Location

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from toolkit.storage import Storage

# So many that the half of them are some parts, which are done before the gate closes.
MANY = 500

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def few(storage: Storage, sample_files: list[Path], bad_files: dict[str, bytes]) -> Location:
    """Return where two dozen images and three bad files are."""
    where = storage.location("images", "of-the-node", "few")
    for file in sample_files:
        storage.upload(file, where / file.parent.name / file.name)
    for name, content in bad_files.items():
        storage.write(where / "Bad" / name, content)
    return where


@pytest.fixture(scope="module")
def many(storage: Storage, sample_files: list[Path]) -> Iterator[Location]:
    """Return where the same two dozen images are, again and again."""
    where = storage.location("images", "of-the-node", new_run_id())
    for number in range(MANY):
        file = sample_files[number % len(sample_files)]
        storage.upload(file, where / file.parent.name / f"{number}.jpg")
    yield where
    storage.delete_all(where)


@pytest.fixture
def gate(storage: Storage, many: Location) -> Iterator[Gate]:
    """Give a gate that no job on the many images gets through."""
    with gate_before(storage, many, let_through=MANY // 2) as gate:
        yield gate


def test_job_is_done_and_its_record_and_log_are_in_the_bucket(begin, few, surroundings, model):
    output = Location(few.bucket, f"results/{new_run_id()}")
    # The weights were a file of the laptop, which nobody looks for here.
    node = begin(few, components=5, output=output.uri, weights="/home/ann/mine.keras")
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
    assert record.weights == f"sha256:{model.weights_sha256}"
    assert record.weights_sha256 == model.weights_sha256
    assert (record.engine, record.input_size) == (model.engine, model.input_size)
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


def test_node_whose_machine_shuts_down_says_so(begin, many, gate, surroundings):
    node = begin(many, gate=gate, components=6)  # a run of its own
    with surroundings.metadata(), node.working() as process:
        eventually(node.is_featurizing)
        os.killpg(process.pid, signal.SIGTERM)  # as systemd does, to all of a service: Spark, too
        last = node.followed()
        assert process.wait(timeout=120) == 1
    assert last.phase == "interrupted"
    assert last.error == "The machine ends this node (SIGTERM)"


def test_node_that_dies_is_noticed_and_another_one_may_go_on(begin, many, gate, surroundings):
    node = begin(many, gate=gate, components=7)  # a run of its own
    with surroundings.metadata(), node.working() as process:
        eventually(lambda: node.is_featurizing() and node.folder.status().run_id is not None)
        os.killpg(process.pid, signal.SIGKILL)
        with pytest.raises(JobError, match="is dead: it has been silent for"):
            node.followed(replace(LIMITS, silent=3))
    assert node.folder.status().phase == "running"
    assert not node.log.with_name(f"{node.log.name}.final").exists()
    assert any("Features" in line for line in node.lines)
    run_id = release_run(node.folder)
    assert find_run(node.folder.storage, run_id).status == "failed"  # as that of a stopped node


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
