"""The bundle: the same bytes for the same tree, in the bucket once, and whole."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import zipfile
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.support import CHECKOUT
from toolkit.cloud.bundle import (
    BUNDLES,
    MANIFEST,
    find_manifest,
    make_bundle,
    open_bundle,
    upload,
)
from toolkit.cloud.job import JOB
from toolkit.errors import JobError, RequestError

if TYPE_CHECKING:
    from toolkit.storage import Storage

BUNDLED = ("requirements.lock", "pyproject.toml", "localstack/bootstrap.sh")


@pytest.fixture
def bucket(storage: Storage) -> Storage:
    """Return the store without any bundle in it."""
    storage.delete_all(storage.location(BUNDLES))
    return storage


def keys(storage: Storage) -> dict[str, str]:
    """Return the ETags of all objects of bundles, by their keys."""
    return {each.location.key: each.e_tag for each in storage.objects(storage.location(BUNDLES))}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


# --- what is in it -------------------------------------------------------------------------------


def test_same_tree_gives_the_same_bundle_byte_for_byte_whatever_the_job(
    made, checkout, job, aws, tmp_path, monkeypatch
):
    for file in checkout.rglob("*.py"):  # as a clone of another day and another umask has it
        os.utime(file, (1e9, 1e9))
        file.chmod(0o600)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    other = replace(job, limit=None)
    second = make_bundle(tmp_path / "second", other, profile=aws, checkout=checkout)
    assert second.identity == made.identity
    assert second.manifest == made.manifest
    assert (second.folder / JOB).read_bytes() != (made.folder / JOB).read_bytes()


def test_manifest_tells_size_and_hash_of_all_files_but_the_job(made, model):
    listed = {file.path: (file.sha256, file.size) for file in made.manifest.files}
    there = {
        path.relative_to(made.folder).as_posix(): path.read_bytes()
        for path in made.folder.rglob("*")
        if path.is_file()
    }
    assert listed == {
        name: (sha256(content), len(content))
        for name, content in there.items()
        if name not in {JOB, MANIFEST}
    }
    models = {f"models/prepared/{model.key}/{name}" for name in model.files}
    assert listed.keys() == {made.manifest.wheel, *BUNDLED, *models}
    assert made.identity == sha256(there[MANIFEST])
    assert made.size == sum(size for _, size in listed.values())
    assert {"fruits-toolkit", "pyspark", "openvino"} <= made.manifest.versions.keys()


def test_wheel_holds_the_toolkit_and_nothing_of_the_local_stack(made):
    with zipfile.ZipFile(made.folder / made.manifest.wheel) as wheel:
        members = wheel.namelist()
        assert wheel.read("toolkit/pipeline.py") == (CHECKOUT / "toolkit/pipeline.py").read_bytes()
    assert {name.split("/")[0].split("-")[0] for name in members} == {"toolkit", "fruits_toolkit"}


def test_folder_that_is_in_use_is_not_bundled_over(job, aws, tmp_path):
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(RequestError, match="is not empty"):
        make_bundle(tmp_path, job, profile=aws)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_tree_that_does_not_build_says_why(checkout, job, aws, tmp_path):
    project = (checkout / "pyproject.toml").read_text()
    (checkout / "pyproject.toml").write_text(
        project.replace('readme = "README.md"', 'readme = "NO.md"')
    )
    with pytest.raises(JobError, match=r"can't be built from .*my checkout: .*NO\.md"):
        make_bundle(tmp_path / "bundle", job, profile=aws, checkout=checkout)


def test_model_that_is_gone_is_named(job, aws, tmp_path):
    gone = replace(job.model, folder=str(tmp_path / "no such folder"))
    with pytest.raises(JobError, match="no such folder"):
        make_bundle(tmp_path / "bundle", replace(job, model=gone), profile=aws)


def test_wheel_alone_makes_no_bundle_and_says_what_does(made, tmp_path):
    with zipfile.ZipFile(made.folder / made.manifest.wheel) as wheel:
        wheel.extractall(tmp_path / "site")
    program = (
        "from pathlib import Path; from toolkit.cloud.bundle import make_bundle; "
        "make_bundle(Path('bundle'), None, profile=None)"
    )
    asked = subprocess.run(
        [sys.executable, "-P", "-c", program],
        env=os.environ | {"PYTHONPATH": str(tmp_path / "site")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "RequestError: A bundle is made from a checkout of fruits-toolkit" in asked.stderr
    assert "bash localstack/bootstrap.sh setup" in asked.stderr


# --- in the bucket -------------------------------------------------------------------------------


def test_second_upload_sends_nothing(made, bucket):
    told: list[int] = []
    sent = upload(made, bucket, on_done=told.append)
    assert sent == [*(file.path for file in made.manifest.files), MANIFEST]
    assert told[-1] == made.size
    assert told == sorted(told)
    before = keys(bucket)
    assert f"{BUNDLES}/{made.identity}/{MANIFEST}" in before
    assert len(before) == len(sent)

    assert upload(made, bucket) == []
    assert keys(bucket) == before
    assert find_manifest(made.identity, bucket) == made.manifest


def test_changed_code_sends_a_wheel_and_not_the_model_again(
    made, bucket, checkout, job, aws, tmp_path
):
    upload(made, bucket)
    with (checkout / "toolkit" / "pipeline.py").open("a") as file:
        file.write("# changed\n")
    changed = make_bundle(tmp_path / "changed", job, profile=aws, checkout=checkout)
    assert changed.identity != made.identity
    assert upload(changed, bucket) == [changed.manifest.wheel, MANIFEST]
    assert find_manifest(made.identity, bucket) == made.manifest  # the old one is still whole


def test_cut_upload_is_not_taken_for_a_whole_one_and_goes_on_where_it_stopped(made, bucket):
    class Cut(Exception):  # noqa: N818 - what happens to the connection
        pass

    def cut(done: int) -> None:
        if done > made.size // 2:
            raise Cut

    with pytest.raises(Cut):
        upload(made, bucket, on_done=cut)
    sent = len(keys(bucket))
    assert 0 < sent <= len(made.manifest.files)
    with pytest.raises(JobError, match=rf"{made.identity}/{MANIFEST} is missing"):
        find_manifest(made.identity, bucket)

    assert len(upload(made, bucket)) == len(made.manifest.files) + 1 - sent
    assert find_manifest(made.identity, bucket) == made.manifest


def test_missing_object_is_named_and_sent_again(made, bucket):
    upload(made, bucket)
    lock = next(file for file in made.manifest.files if file.path == "requirements.lock")
    bucket.delete_all(lock.location(bucket))
    with pytest.raises(JobError, match=rf"{lock.sha256}/requirements\.lock is missing"):
        find_manifest(made.identity, bucket)
    assert upload(made, bucket) == ["requirements.lock"]


def test_damaged_manifest_is_found(made, bucket):
    upload(made, bucket)
    place = bucket.location(BUNDLES, made.identity, MANIFEST)
    content = bucket.read(place)
    bucket.write(place, content[:-2] + b" \n")
    with pytest.raises(JobError, match=rf"{MANIFEST} is damaged"):
        find_manifest(made.identity, bucket)


def test_file_that_changed_after_bundling_is_not_uploaded(bundle, bucket):
    with (bundle.folder / "requirements.lock").open("a") as file:
        file.write("# changed\n")
    with pytest.raises(JobError, match=r"has changed since it was made: requirements\.lock"):
        upload(bundle, bucket)
    assert keys(bucket) == {}


def test_incomplete_folder_is_no_bundle(bundle):
    (bundle.folder / "requirements.lock").unlink()
    with pytest.raises(JobError, match=r"is not whole: .*requirements\.lock"):
        open_bundle(bundle.folder)
