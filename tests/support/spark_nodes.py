"""Nodes of one launch with a secret in the parameter store (moto), without a job."""

from __future__ import annotations

from typing import TYPE_CHECKING

import boto3
import pytest

from toolkit.cloud.aws.names import spark_secret_name
from toolkit.cloud.node.spark_cluster import Seat, SparkNode
from toolkit.cloud.status import PromotionFolder
from toolkit.runs import new_run_id

if TYPE_CHECKING:
    from collections.abc import Callable

    from toolkit.storage import Storage

REGION = "eu-west-3"
RESERVATION = "r-0123456789abcdef0"
SECRET = "hush-" + "s3cr3t" * 6
NAMES = ("i-00000000000000001", "i-00000000000000002")


# --- fixtures: a folder's conftest.py imports them -----------------------------------------------


@pytest.fixture
def parameters(moto_url: str):
    """Return the client of a parameter store of our own, past this test's environment."""
    keys = {"aws_access_key_id": "AKIATESTTESTTESTTEST", "aws_secret_access_key": "tests"}
    return boto3.session.Session(**keys, region_name=REGION).client("ssm", endpoint_url=moto_url)


@pytest.fixture
def folder(storage: Storage) -> PromotionFolder:
    return PromotionFolder(storage, new_run_id())


@pytest.fixture
def node(
    folder: PromotionFolder, parameters, moto_url, tmp_path, monkeypatch
) -> Callable[[int], SparkNode]:
    """Return a function that makes a node of a launch that has its secret."""
    name = spark_secret_name(folder.promotion_id)
    parameters.put_parameter(Name=name, Type="SecureString", Value=SECRET)
    for variable, text in {
        "AWS_ENDPOINT_URL_SSM": moto_url,
        "AWS_ACCESS_KEY_ID": "AKIATESTTESTTESTTEST",
        "AWS_SECRET_ACCESS_KEY": "tests",
        "NO_PROXY": "127.0.0.1",
    }.items():
        monkeypatch.setenv(variable, text)

    def call(index: int) -> SparkNode:
        return SparkNode(
            folder=folder,
            name=f"i-{index}",
            seat=Seat(f"127.0.0.{2 + index}", RESERVATION, REGION),
            cores=1,
            memory="1g",
            log=tmp_path / f"{index}.log",
            say=lambda _: None,
            home=tmp_path / f"spark-{index}",
        )

    return call
