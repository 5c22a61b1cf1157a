"""Runs in the shared session, and their files as others read them."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pandas as pd
import pytest

from toolkit.pipeline import RunRequest, run
from toolkit.storage import Location

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pyspark.sql import SparkSession

    from toolkit.models import PreparedModel
    from toolkit.profiles import Profile
    from toolkit.runs import RunRecord
    from toolkit.storage import Storage


@pytest.fixture
def launch(spark: SparkSession, profile: Profile, tmp_path: Path) -> Callable[..., RunRecord]:
    """Return a function that runs the pipeline in the shared session."""

    def call(images: object, *, network: PreparedModel | None = None, **asked: object) -> RunRecord:
        request = RunRequest(images=str(images), **asked)
        log = tmp_path / "driver.log"
        return run(request, profile, log=log, spark=spark, network=network)

    return call


def read_parquet(storage: Storage, uri: str) -> pd.DataFrame:
    """Read a dataset with pandas alone, as somebody without this package does."""
    parts = [
        pd.read_parquet(io.BytesIO(storage.read(entry.location)))
        for entry in storage.objects(Location.parse(uri))
        if entry.location.key.endswith(".parquet")
    ]
    return pd.concat(parts, ignore_index=True)
