"""The job description: read on the node as it was written here, and of use there."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from toolkit.cloud.job import JobDescription
from toolkit.errors import JobError, RequestError
from toolkit.profiles import S3Settings, load_profile


def test_job_is_read_on_the_node_as_it_was_written_here(job, model):
    root = Path("/opt/fruits-toolkit")
    read = JobDescription.from_json(job.to_json(), root=root)
    there = replace(model, folder=f"{root}/models/prepared/{model.key}", weights_source="imagenet")
    assert read == replace(job, model=there)


@pytest.mark.parametrize("weights", ["imagenet", "random:7", "s3://models/mine.keras"])
def test_weights_that_a_node_can_reach_keep_their_name(job, weights):
    written = json.loads(replace(job, weights=weights).to_json())
    assert (written["weights"], written["model"]["weights_source"]) == (weights, weights)


def test_weights_of_this_machine_are_named_by_their_hash(job, model):
    mine = replace(model, weights_source="/home/ann/mine.keras")
    written = replace(job, weights="/home/ann/mine.keras", model=mine).to_json()
    assert "/home/ann" not in written
    assert json.loads(written)["weights"] == f"sha256:{model.weights_sha256}"


@pytest.mark.parametrize("place", ["images", "output"])
def test_job_takes_no_folder_of_this_machine(job, place):
    with pytest.raises(RequestError, match="not the URI of an object store"):
        replace(job, **{place: "/home/ann/fruits"})


def test_node_works_on_amazon_s3_unless_its_environment_says_otherwise(model, monkeypatch):
    given = {"s3": {"bucket": "ours", "region": "eu-west-3"}, "spark": {"driver_memory": "3g"}}
    profile = load_profile("aws", options=given)
    job = JobDescription.of(model, profile, images="s3a://ours/images", weights="imagenet")
    there = JobDescription.from_json(job.to_json(), root=Path("/")).node_profile()
    assert there.name == "aws"
    assert there.s3 == S3Settings(endpoint="aws", bucket="ours", region="eu-west-3")
    assert (there.spark.master, there.spark.driver_memory) == ("local[*]", "3g")

    monkeypatch.setenv("TOOLKIT_S3__ENDPOINT", "http://127.0.0.1:9000")
    assert job.node_profile().s3.endpoint == "http://127.0.0.1:9000"
    assert job.node_profile().s3.bucket == "ours"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"model": 1}', '{"model": {}, "more": 1}'])
def test_other_documents_are_no_job(text):
    with pytest.raises(JobError, match="no description of a job"):
        JobDescription.from_json(text, root=Path("/"))
