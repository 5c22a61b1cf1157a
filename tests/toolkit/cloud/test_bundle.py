"""The bundle: the same bytes for the same tree, uploaded once, and with nothing of this machine."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pydantic import SecretStr

from toolkit.cloud.bundle import (
    BUNDLES,
    JOB,
    MANIFEST,
    Bundle,
    JobDescription,
    find_leaks,
    make_bundle,
    open_bundle,
    refuse_leaks,
    upload,
    upload_job,
    verify,
)
from toolkit.cloud.status import PromotionFolder
from toolkit.errors import JobError, RequestError
from toolkit.folders import cache_folder
from toolkit.models import DEFAULT_MODEL, PreparedModel, model_spec, prepare, resolve_weights
from toolkit.profiles import Profile, S3Settings, load_profile

if TYPE_CHECKING:
    from toolkit.storage import Storage

pytestmark = pytest.mark.slow  # it builds wheels

CHECKOUT = Path(__file__).parents[3]
BUNDLED = ("requirements.lock", "pyproject.toml", "localstack/bootstrap.sh")
BUILT_FROM = (*BUNDLED, "README.md", "LICENSE", ".gitignore")
IMAGES = "s3a://fruits/images/sample_images"
# Made up, in the forms of the real ones.
KEY_ID = "AKIA" + "Q7" * 8
SECRET = "wJalr/XUtn+FEMI/K7MDENG" + "x" * 17


@pytest.fixture(scope="session")
def model() -> PreparedModel:
    """Return the default model out of the user's cache."""
    spec = model_spec(DEFAULT_MODEL)
    weights = resolve_weights(spec, "imagenet", cache=cache_folder())
    return prepare(spec, weights, cache=cache_folder())


@pytest.fixture(scope="session")
def aws() -> Profile:
    return load_profile("aws", options={"s3": {"region": "eu-west-3"}})


@pytest.fixture(scope="session")
def job(model: PreparedModel, aws: Profile) -> JobDescription:
    return JobDescription.of(model, aws, images=IMAGES, weights="imagenet", limit=24)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a copy of what a bundle is made from, for a test to change."""
    copy = tmp_path / "my checkout"
    shutil.copytree(
        CHECKOUT / "toolkit", copy / "toolkit", ignore=shutil.ignore_patterns("__pycache__")
    )
    for name in BUILT_FROM:
        (copy / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(CHECKOUT / name, copy / name)
    return copy


@pytest.fixture(scope="session")
def made(job: JobDescription, aws: Profile, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Return the bundle of this checkout, for tests that leave it as it is."""
    return make_bundle(tmp_path_factory.mktemp("made") / "bundle", job, profile=aws)


@pytest.fixture
def bundle(made: Bundle, tmp_path: Path) -> Bundle:
    """Return a copy of the bundle, for a test to change."""
    shutil.copytree(made.folder, tmp_path / "bundle")
    return replace(made, folder=tmp_path / "bundle")


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


def test_same_tree_gives_the_same_bundle_byte_for_byte(checkout, job, aws, tmp_path, monkeypatch):
    first = make_bundle(tmp_path / "first", job, profile=aws, checkout=checkout)
    for file in checkout.rglob("*.py"):  # as a clone of another day and another umask has it
        os.utime(file, (1e9, 1e9))
        file.chmod(0o600)
    moved = checkout.rename(tmp_path / "elsewhere")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    second = make_bundle(tmp_path / "second", job, profile=aws, checkout=moved)
    assert second.identity == first.identity
    assert second.manifest == first.manifest


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


def test_job_does_not_decide_on_the_bundle(made, job, aws, tmp_path):
    other = make_bundle(tmp_path / "other", replace(job, limit=None), profile=aws)
    assert other.identity == made.identity
    assert (other.folder / JOB).read_bytes() != (made.folder / JOB).read_bytes()


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


def test_model_that_is_gone_is_named(model, aws, tmp_path):
    gone = replace(model, folder=str(tmp_path / "no such folder"))
    job = JobDescription.of(gone, aws, images=IMAGES, weights="imagenet")
    with pytest.raises(JobError, match="no such folder"):
        make_bundle(tmp_path / "bundle", job, profile=aws)


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


# --- the job -------------------------------------------------------------------------------------


def test_job_is_read_on_the_node_as_it_was_written_here(job, model, made):
    root = Path("/opt/fruits-toolkit")
    read = JobDescription.from_json((made.folder / JOB).read_bytes(), root=root)
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
    job = JobDescription.of(
        model, load_profile("aws", options=given), images=IMAGES, weights="imagenet"
    )
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
    assert verify(made.identity, bucket) == made.manifest


def test_changed_code_sends_a_wheel_and_not_the_model_again(
    made, bucket, checkout, job, aws, tmp_path
):
    upload(made, bucket)
    with (checkout / "toolkit" / "pipeline.py").open("a") as file:
        file.write("# changed\n")
    changed = make_bundle(tmp_path / "changed", job, profile=aws, checkout=checkout)
    assert changed.identity != made.identity
    assert upload(changed, bucket) == [changed.manifest.wheel, MANIFEST]
    assert verify(made.identity, bucket) == made.manifest  # the old one is still whole


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
        verify(made.identity, bucket)

    assert len(upload(made, bucket)) == len(made.manifest.files) + 1 - sent
    assert verify(made.identity, bucket) == made.manifest


def test_missing_object_is_named_and_sent_again(made, bucket):
    upload(made, bucket)
    lock = next(file for file in made.manifest.files if file.path == "requirements.lock")
    bucket.delete_all(lock.location(bucket))
    with pytest.raises(JobError, match=rf"{lock.sha256}/requirements\.lock is missing"):
        verify(made.identity, bucket)
    assert upload(made, bucket) == ["requirements.lock"]


@pytest.mark.parametrize("path", ["requirements.lock", MANIFEST])
def test_damaged_object_is_found(made, bucket, path):
    upload(made, bucket)
    digests = {file.path: file.sha256 for file in made.manifest.files} | {MANIFEST: made.identity}
    place = bucket.location(BUNDLES, digests[path], path)
    content = bucket.read(place)
    bucket.write(place, content[:-2] + b" \n")
    with pytest.raises(JobError, match=rf"{path} is damaged"):
        verify(made.identity, bucket)


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


def test_job_lies_with_its_promotion(made, bucket):
    promotion = PromotionFolder(bucket, "20261125-101112-000ab")
    place = upload_job(made, promotion)
    assert place.key == "toolkit/promotions/20261125-101112-000ab/job.json"
    assert bucket.read(place) == (made.folder / JOB).read_bytes()


# --- what must not be in it ----------------------------------------------------------------------


@pytest.fixture
def ann(hostile_aws: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the home of a developer with credentials of all kinds."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("TOOLKIT_S3__ACCESS_KEY_ID", "minioadmin")
    monkeypatch.setenv("TOOLKIT_S3__SECRET_ACCESS_KEY", "minioadmin")
    home = tmp_path / "ann"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("TOOLKIT_CACHE", "/data/caches/fruits")
    return home


def leaks(folder: Path, profile: Profile, **files: str | bytes) -> list[str]:
    """Return what is found in some files, as it is told."""
    for name, content in files.items():
        file = folder / name.replace("__", ".")
        file.write_bytes(content.encode() if isinstance(content, str) else content)
    return [str(leak) for leak in find_leaks(folder, profile=profile)]


def test_bundle_of_this_checkout_has_no_leak_whatever_the_environment(made, ann, aws):
    assert find_leaks(made.folder, profile=aws) == []
    local = load_profile("local", options={"s3": {"endpoint": "http://127.0.0.1:9000"}})
    assert find_leaks(made.folder, profile=local) == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f'"{KEY_ID}"', "an AWS access key id"),
        (f'"ASIA{KEY_ID[4:]}"', "an AWS access key id"),
        (f'"aws_secret_access_key = {SECRET[::-1]}"', "an AWS secret"),
        ('"-----BEGIN RSA PRIVATE KEY-----"', "a private key"),
        (f'"{SECRET}"', "the value of AWS_SECRET_ACCESS_KEY"),
        ('"minioadmin"', "the value of TOOLKIT_S3__ACCESS_KEY_ID"),
        ('"the-secret-of-a-profile"', "the value of s3.secret_access_key of the profile"),
        ('"{home}/fruits"', "the folder {home} of this machine"),
        ('"/data/caches/fruits/prepared"', "the folder /data/caches/fruits of this machine"),
        ('"/tmp/fruits"', "a local path that begins with /tmp"),
        ('"file:///srv/fruits"', "a local path that begins with file:/"),
        ('"~/fruits"', "a local path that begins with ~/"),
        (r'"C:\\Users\\ann"', "a local path that begins with C:\\\\U"),
        ('"/mnt/c/fruits"', "a local path that begins with /mnt"),
        ('"http://127.0.0.1:9000"', "the local endpoint 127.0.0.1:9000"),
        ('"localhost"', "the local endpoint localhost"),
        ('"spark://10.0.0.7:7077"', "the local endpoint 10.0.0.7:7077"),
        ('"http://[::1]:9000"', "the local endpoint [::1]:9000"),
    ],
)
def test_data_with_something_of_this_machine_is_told_with_its_line(tmp_path, ann, aws, text, told):
    secret = SecretStr("the-secret-of-a-profile")
    profile = aws.model_copy(update={"s3": aws.s3.model_copy(update={"secret_access_key": secret})})
    folder = tmp_path / "bundle"
    folder.mkdir()
    text = text.replace("{home}", str(ann))
    found = leaks(folder, profile, job__json=f'{{\n  "images": {text}\n}}\n')
    assert f"job.json, line 2: {told.replace('{home}', str(ann))}" in found


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f'KEY = "{KEY_ID}"', "an AWS access key id"),
        (f'TOKEN = "{SECRET}"', "the value of AWS_SECRET_ACCESS_KEY"),
        ('IMAGES = "/home/bob/fruits"', "a local path that begins with /home/bob"),
        (r'IMAGES = "C:\Users\bob"', r"a local path that begins with C:\Users\bob"),
        ('IMAGES = "/data/caches/fruits"', "the folder /data/caches/fruits of this machine"),
        (f'IMAGES = "{CHECKOUT}/images"', f"the folder {CHECKOUT} of this machine"),
        ('S3 = "http://localhost:9000"', "the local endpoint http://localhost:9000"),
        ('S3 = "http://192.168.1.2:9000"', "the local endpoint http://192.168.1.2:9000"),
    ],
)
def test_code_with_something_of_this_machine_is_told_with_its_line(tmp_path, ann, aws, text, told):
    folder = tmp_path / "bundle"
    folder.mkdir()
    assert f"run.py, line 2: {told}" in leaks(folder, aws, run__py=f'"""Doc."""\n{text}\n')


@pytest.mark.parametrize(
    "harmless",
    [
        {"job__json": '{"images": "s3a://fruits/tmp/home/x", "region": "eu-west-3"}'},
        {"job__json": '{"nvidia-curand-cu12": "10.3.9.90", "openvino": "2026.4.1"}'},
        {"job__json": '{"layers": "net/tmp/conv:0", "ratio": "4/5", "page": "https://a.org/opt"}'},
        {"run__py": 'LOOPBACK = {"127.0.0.1", "localhost"}  # not http://localhost'},
        {"run__py": 'SPOOL = "/var/tmp"; ROOT = "/root"; HERE = "/opt/fruits-toolkit"'},
        {"run__py": '"""What is wrong: minioadmin."""\nurl = f"http://127.0.0.1:{port}"'},
        {"run__py": 'METADATA = "http://169.254.169.254/latest"'},
        {"model__bin": b"\xff\xfe/tmp http://localhost:9000 " + KEY_ID.encode()},
    ],
)
def test_what_only_looks_like_it_is_no_leak(tmp_path, ann, aws, harmless):
    folder = tmp_path / "bundle"
    folder.mkdir()
    assert leaks(folder, aws, **harmless) == []


def test_secret_is_found_in_a_file_that_is_no_text(tmp_path, ann, aws):
    folder = tmp_path / "bundle"
    folder.mkdir()
    found = leaks(folder, aws, model__bin=b"\xff\xfe" + SECRET.encode())
    assert found == ["model.bin: the value of AWS_SECRET_ACCESS_KEY"]


def test_leak_in_the_wheel_stops_the_bundle_and_no_secret_is_shown(
    checkout, job, aws, ann, tmp_path
):
    (checkout / "toolkit" / "settings.ini").write_text(
        f"[default]\naws_access_key_id = {KEY_ID}\naws_secret_access_key = {SECRET}\n"
    )
    with (checkout / "toolkit" / "pipeline.py").open("a") as file:
        file.write('_ENDPOINT = "http://127.0.0.1:9000"  # noqa: leak\n')
    with pytest.raises(RequestError) as refused:
        make_bundle(tmp_path / "bundle", job, profile=aws, checkout=checkout)
    told = str(refused.value)
    assert ".whl: toolkit/settings.ini, line 2: an AWS access key id" in told
    assert ".whl: toolkit/settings.ini, line 3: the value of AWS_SECRET_ACCESS_KEY" in told
    assert ".whl: toolkit/pipeline.py, line " in told
    assert KEY_ID not in told
    assert SECRET not in told


def test_leak_in_the_job_stops_the_bundle(bundle, aws):
    job = json.loads((bundle.folder / JOB).read_text())
    job["output"] = "http://127.0.0.1:9000/fruits"
    (bundle.folder / JOB).write_text(json.dumps(job))
    with pytest.raises(RequestError, match=r"job\.json, line 1: the local endpoint 127\.0\.0\.1"):
        refuse_leaks(bundle.folder, profile=aws)
