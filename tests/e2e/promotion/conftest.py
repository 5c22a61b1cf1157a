"""AWS, and a person with a checkout in front of it."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.support.aws_proxy import opened
from tests.support.promotion import BUCKET, CACHE, CONFIG, UV_CACHE, Cloud, Scripted
from toolkit.cloud.status import BOOT_STAGE, PromotionFolder, Stage, Status
from toolkit.runs import RunFolder, new_run_id
from toolkit.storage import Storage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from localstack import StackSettings
    from tests.support.moto import Moto
    from tests.support.promotion import Script
    from toolkit.runs import RunRecord


@pytest.fixture
def cloud(
    moto: Moto,
    storage: Storage,
    stack_settings: StackSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Cloud]:
    """Give an AWS with an empty bucket and nothing else, and a person who may do everything."""
    settings = storage.settings
    moto.region = settings.region
    monkeypatch.setenv("AWS_REGION", settings.region)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", settings.endpoint)
    key, secret = settings.credentials()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    moto.equip(settings.region)
    # An open store has the credentials of the test before for some minutes.
    monkeypatch.setattr("toolkit.storage._OPEN_STORES", {})
    own = Storage(settings.model_copy(update={"bucket": BUCKET}))
    s3 = moto.account().client("s3")
    with suppress(s3.exceptions.BucketAlreadyOwnedByYou):
        s3.create_bucket(Bucket=BUCKET)
    (tmp_path / "toolkit.toml").write_text(CONFIG.format(bucket=BUCKET, region=settings.region))
    env = {
        **os.environ,
        "TOOLKIT_HOME": str(stack_settings.root),
        "TOOLKIT_CACHE": str(CACHE),
        "UV_CACHE_DIR": UV_CACHE,
    }
    cloud = Cloud(moto, opened(moto.account()), own, env, tmp_path)
    try:
        yield cloud
    finally:
        for call in cloud.calls:
            if call.poll() is None:
                with suppress(ProcessLookupError):
                    os.killpg(call.pid, signal.SIGKILL)
                call.wait()
        own.delete_all(own.location())


@pytest.fixture
def works(record: RunRecord, tmp_path: Path) -> Script:
    """Return what a node does that has no trouble: it has made a run when it ends."""

    def work(folder: PromotionFolder, node: Scripted) -> None:
        folder.report(Status("booting", node.name))
        run = RunFolder(folder.storage, new_run_id())
        stages = (Stage(BOOT_STAGE, seconds=1.0), Stage("Features", total=24, done=12))
        folder.report(Status("running", node.name, stages=stages, run_id=run.run_id))
        run.save(replace(record, run_id=run.run_id))
        folder.storage.write(run.file("report.html"), b"<html>")
        folder.report(Status("done", node.name, stages=stages, run_id=run.run_id))

    return work
