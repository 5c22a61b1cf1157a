"""What must not leave this machine: found in a bundle and in whatever may come into one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from pydantic import SecretStr

from tests.support import CHECKOUT
from tests.support.developer import KEY_ID, SECRET
from toolkit.cloud.job import JOB
from toolkit.cloud.leaks import find_leaks, refuse_leaks
from toolkit.errors import RequestError

if TYPE_CHECKING:
    from pathlib import Path

    from toolkit.profiles import Profile


def leaks(folder: Path, profile: Profile, **files: str | bytes) -> list[str]:
    """Return what is found in some files, as it is told."""
    for name, content in files.items():
        file = folder / name.replace("__", ".")
        file.write_bytes(content.encode() if isinstance(content, str) else content)
    return [str(leak) for leak in find_leaks(folder, profile=profile)]


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


def test_leak_in_the_job_stops_the_bundle(job, aws, tmp_path):
    written = json.loads(job.to_json()) | {"output": "http://127.0.0.1:9000/fruits"}
    (tmp_path / JOB).write_text(json.dumps(written))
    with pytest.raises(RequestError, match=r"job\.json, line 1: the local endpoint 127\.0\.0\.1"):
        refuse_leaks(tmp_path, profile=aws)
