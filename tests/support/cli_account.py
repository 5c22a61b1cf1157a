"""The command line on moto's server, in an empty folder, with or without a terminal."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.moto import Moto

BUCKET = "cli-fruits"


@pytest.fixture
def bucket(no_aws: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Name a bucket to the toolkit, which has no other setting, and return its name."""
    for name in os.environ:
        if name.startswith("TOOLKIT_"):
            no_aws.delenv(name)
    here = tmp_path / "here"
    here.mkdir()
    no_aws.chdir(here)
    no_aws.setenv("TOOLKIT_S3__BUCKET", BUCKET)
    no_aws.setenv("TOOLKIT_S3__REGION", os.environ["AWS_REGION"])
    return BUCKET


@pytest.fixture
def aws(moto: Moto, bucket: str) -> Moto:
    """Give an account in which a promotion can begin."""
    moto.make_bucket(bucket)
    moto.equip()
    return moto
