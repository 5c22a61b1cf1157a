"""A node's work in this process, without Spark: its status to the end, however it ends."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.support.nodes import NODE, Node
from toolkit.cloud.node.work import run_node
from toolkit.errors import JobError
from toolkit.runs import Owner
from toolkit.storage import Location

if TYPE_CHECKING:
    from collections.abc import Callable

    from toolkit.cloud.status import Status
    from toolkit.progress import Progress
    from toolkit.runs import RunRecord
    from toolkit.storage import Storage

IMAGES = Location("fruits", "images/none")


@pytest.fixture
def here(storage: Storage, aws_keys: pytest.MonkeyPatch, tmp_path) -> Callable[[Node], Status]:
    """Return what does a node's work in this process, as the node's own process would."""
    settings = storage.settings
    key, secret = settings.credentials()
    for name, text in {
        "AWS_ENDPOINT_URL_S3": settings.endpoint,
        "AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://127.0.0.1:9",  # nobody listens there
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": secret,
        "TOOLKIT_HOME": str(tmp_path / "state"),
        "TOOLKIT_CACHE": str(tmp_path / "cache"),
    }.items():
        aws_keys.setenv(name, text)
    # Runs that other tests have made in this process are not the node's.
    node_process = replace(Owner.this_process(), started=1.0)
    aws_keys.setattr("toolkit.runs.Owner.this_process", lambda: node_process)
    # An open store has the credentials of the test before for some minutes.
    aws_keys.setattr("toolkit.storage._OPEN_STORES", {})

    def call(node: Node) -> Status:
        with node.log.open("a") as log, redirect_stdout(log), redirect_stderr(log):
            return run_node(node.folder, node=NODE, log=node.log, bundle=node.bundle)

    return call


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Progress], RunRecord]], None]:
    """Return what puts a function in the place of the run, which would start Spark."""

    def put(function: Callable[[Progress], RunRecord]) -> None:
        def run(*_: object, progress: Progress, **__: object) -> RunRecord:
            return function(progress)

        monkeypatch.setattr("toolkit.cloud.node.work.run", run)

    return put


def test_run_that_fails_is_reported_with_its_reason(begin, here):
    node = begin(Location("no-such-bucket-anywhere", "images"))
    last = here(node)
    assert last == node.folder.status().__class__(**vars(last))
    assert last.phase == "failed"
    assert "no-such-bucket-anywhere" in last.error
    assert last.stages[-1].seconds is not None
    assert last.run_id is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [("{}", "no description of a job"), (None, "job.json does not exist")],
)
def test_job_that_cannot_be_read_is_reported(begin, here, storage, text, problem):
    node = begin(IMAGES)
    if text is None:
        storage.delete_all(node.folder.file("job.json"))
    else:
        storage.write(node.folder.file("job.json"), text.encode())
    here(node)
    last = node.folder.status()
    assert last.phase == "failed"
    assert problem in last.error


def test_defect_of_ours_is_reported_as_well_with_its_traceback(begin, here, storage, sample_files):
    where = storage.location("images", "of-the-defect")
    storage.upload(sample_files[0], where / "Apple" / "1.jpg")
    node = begin(where)
    job = json.loads(storage.read(node.folder.file("job.json")))
    job["limit"] = "many"  # what no check has foreseen
    storage.write(node.folder.file("job.json"), json.dumps(job).encode())
    here(node)
    last = node.folder.status()
    assert last.phase == "failed"
    assert last.error.startswith("TypeError: ")
    shipped = storage.read(node.folder.chunk(NODE, 0)).decode()
    assert any(line.startswith("Traceback") for line in shipped.splitlines())


def endless(progress: Progress) -> RunRecord:
    """Work until somebody ends it."""
    progress.begin("Features", total=9)
    time.sleep(60)
    raise JobError("Nobody has ended the work")


def test_node_that_is_stopped_in_the_bucket_ends(begin, here, runs):
    runs(endless)
    node = begin(IMAGES)
    node.folder.ask_to_stop()
    here(node)
    last = node.folder.status()
    assert (last.phase, last.error) == (
        "stopped",
        "Stopped, as somebody has asked for in the bucket",
    )
    assert "--resume" in last.remedy


def test_node_that_ec2_takes_back_says_so_and_ends(begin, here, runs, surroundings, monkeypatch):
    runs(endless)
    node = begin(IMAGES)
    variable = "AWS_EC2_METADATA_SERVICE_ENDPOINT"
    monkeypatch.setenv(variable, surroundings.env[variable])
    with surroundings.metadata(interruption_after=0):
        here(node)
    last = node.folder.status()
    assert last.phase == "interrupted"
    assert last.notice.startswith("EC2 will terminate this instance at 20")
    assert last.error == last.notice


def test_interrupted_work_may_fail_in_its_own_way_and_is_not_interrupted_twice(begin, here, runs):
    def fails_on_its_way_out(progress: Progress) -> RunRecord:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        except KeyboardInterrupt:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0)
            raise RuntimeError("The JVM is gone") from None
        raise JobError("Nobody has ended the work")

    runs(fails_on_its_way_out)
    node = begin(IMAGES)
    before = signal.getsignal(signal.SIGTERM)
    here(node)
    last = node.folder.status()
    assert (last.phase, last.error) == ("interrupted", "The machine ends this node (SIGTERM)")
    assert signal.getsignal(signal.SIGTERM) is before


def test_last_status_is_the_last_word_and_the_log_is_shipped_to_its_end(begin, here, runs):
    def fails(progress: Progress) -> RunRecord:
        sys.stdout.write("the last line of the run\n")
        raise JobError("No more images", remedy="Take more")

    runs(fails)
    node = begin(IMAGES)
    here(node)
    last = node.folder.status()
    assert (last.phase, last.error, last.remedy) == ("failed", "No more images", "Take more")
    shipped = node.folder.storage.read(node.folder.chunk(NODE, 0)).decode()
    assert shipped == node.log.read_text()
    assert "the last line of the run" in shipped
    assert shipped.endswith("The work of this node has ended: failed.\n")
    for name in ("taken-over", "final"):  # the boot script has nothing to add
        assert node.log.with_name(f"{node.log.name}.{name}").exists()
