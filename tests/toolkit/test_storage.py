"""The object store, on a real MinIO."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING

import pytest
from pydantic import SecretStr

from toolkit.errors import JobError, RequestError
from toolkit.profiles import S3Settings
from toolkit.storage import Location, ObjectNotFound, Storage, aws_variables_hidden

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HARD_NAMES = ["a b/ü#1%20?x*[1].jpg", "é~&=+;,'.jpg", "tail ", "100%.png"]


@pytest.mark.parametrize("name", HARD_NAMES)
def test_any_name_round_trips_through_write_list_and_read(storage: Storage, name: str) -> None:
    folder = storage.location("test-storage", "names")
    storage.write(folder / name, name.encode())
    listed = {entry.location for entry in storage.objects(folder)}
    assert folder / name in listed
    assert storage.read(folder / name) == name.encode()


@pytest.mark.parametrize(
    ("uri", "bucket", "key"),
    [("s3://b/k/l.jpg", "b", "k/l.jpg"), ("s3a://b/k/", "b", "k"), ("s3://b", "b", "")],
)
def test_location_reads_both_schemes_and_writes_s3a(uri: str, bucket: str, key: str) -> None:
    location = Location.parse(uri)
    assert location == Location(bucket, key)
    assert location.uri == f"s3a://{bucket}/{key}"


@pytest.mark.parametrize("uri", ["http://b/k", "s3://", "s3:///k", "b/k"])
def test_other_uris_are_refused(uri: str) -> None:
    with pytest.raises(RequestError, match="s3://bucket/prefix"):
        Location.parse(uri)


def test_open_store_waits_for_nobody_who_hides_variables(storage: Storage) -> None:
    place = storage.location("test-storage", "unhindered")
    storage.write(place, b"content")
    hidden, done = threading.Event(), threading.Event()

    def hide() -> None:
        with aws_variables_hidden():  # as long as Spark takes to start
            hidden.set()
            done.wait(30)

    with ThreadPoolExecutor(2) as pool:
        pool.submit(hide)
        hidden.wait(30)
        try:
            assert pool.submit(storage.read, place).result(10) == b"content"
        finally:
            done.set()


def test_missing_object_is_told_from_an_unreachable_store(storage: Storage) -> None:
    missing = storage.location("test-storage", "no-such-object")
    assert not storage.exists(missing)
    with pytest.raises(ObjectNotFound, match="no-such-object"):
        storage.read(missing)
    nobody = Storage(
        storage.settings.model_copy(update={"endpoint": "http://127.0.0.1:9"}),
    )
    with pytest.raises(JobError, match="can't be reached"):
        nobody.read(missing)


def test_wrong_credentials_are_said_to_be_denied(storage: Storage) -> None:
    wrong = Storage(
        storage.settings.model_copy(update={"secret_access_key": SecretStr("wrong-secret")})
    )
    with pytest.raises(JobError, match="denied"):
        wrong.read(storage.location("test-storage", "x"))


@pytest.mark.slow
def test_upload_beyond_one_put_arrives_whole(storage: Storage, tmp_path: Path) -> None:
    file = tmp_path / "large.bin"
    file.write_bytes(bytes(range(256)) * 300_000)  # 77 MB: more than one part
    target = storage.location("test-storage", "large.bin")
    storage.upload(file, target)
    storage.download(target, tmp_path / "back.bin")
    assert (tmp_path / "back.bin").read_bytes() == file.read_bytes()
    storage.delete_all(target)


def test_failed_download_leaves_no_file(storage: Storage, tmp_path: Path) -> None:
    with pytest.raises(ObjectNotFound):
        storage.download(storage.location("test-storage", "no-such-object"), tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


def test_aws_variables_do_not_change_the_local_store(
    storage: Storage, hostile_aws: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    # Another bucket in the settings makes another client, not one from before the variables.
    fresh = Storage(storage.settings.model_copy(update={"bucket": "another"}))
    location = storage.location("test-storage", "local.txt")
    fresh.write(location, b"here")
    assert storage.read(location) == b"here"


@pytest.fixture
def recorded_requests() -> Iterator[tuple[str, list[dict[str, str]]]]:
    """Give a loopback server that stands for AWS, and the headers it was sent."""
    seen: list[dict[str, str]] = []

    class Recorder(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(dict(self.headers))
            self.send_response(404)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Recorder) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", seen
        server.shutdown()
        thread.join()


def test_local_keys_never_reach_aws(
    storage: Storage, recorded_requests, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, seen = recorded_requests
    local_key, local_secret = storage.settings.credentials()
    for name, value in {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "AKIAOFTHEUSER0000000",
        "AWS_SECRET_ACCESS_KEY": "of-the-user",
        "TOOLKIT_S3__ACCESS_KEY_ID": local_key,
        "TOOLKIT_S3__SECRET_ACCESS_KEY": local_secret,
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    aws = Storage(S3Settings(endpoint="aws", bucket="somebody-elses"))

    with pytest.raises(ObjectNotFound):
        aws.read(aws.location("key"))

    assert "AKIAOFTHEUSER0000000" in seen[0]["authorization"]
    assert local_key not in str(seen)
    hadoop = aws.hadoop_configuration()
    assert not {"fs.s3a.access.key", "fs.s3a.secret.key", "fs.s3a.endpoint"} & hadoop.keys()
    assert local_secret not in hadoop.values()


def test_threads_that_open_a_store_together_lose_no_variable(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_PROFILE", "of-the-user")
    before = dict(os.environ)
    location = storage.location("test-storage", "together.txt")
    storage.write(location, b"x")
    for attempt in range(20):
        cold = Storage(storage.settings.model_copy(update={"bucket": f"cold-{attempt}"}))
        with ThreadPoolExecutor(16) as pool:
            assert set(pool.map(cold.read, [location] * 16)) == {b"x"}
    assert dict(os.environ) == before


@pytest.mark.parametrize(
    "settings",
    [
        S3Settings(
            endpoint="http://127.0.0.1:9000",
            bucket="own-bucket",
            access_key_id=SecretStr("the-key"),
            secret_access_key=SecretStr("the-secret"),
        ),
        S3Settings(
            endpoint="https://store.example.org",
            region="eu-west-3",
            access_key_id=SecretStr("the-key"),
            secret_access_key=SecretStr("the-secret"),
        ),
        S3Settings(endpoint="aws", region="eu-west-3", bucket="somebody-elses"),
    ],
    ids=["http", "https", "aws"],
)
def test_store_is_found_again_in_the_settings_of_hadoop(settings: S3Settings) -> None:
    configuration = Storage(settings).hadoop_configuration()
    found = Storage.from_hadoop_configuration(configuration.get)
    assert found == Storage(settings)
    assert "the-key" not in repr(found)
    assert "the-secret" not in repr(found)


KEYS = {"fs.s3a.access.key": "k", "fs.s3a.secret.key": "s"}


@pytest.mark.parametrize(
    ("configuration", "endpoint", "region"),
    [
        ({}, "aws", "us-east-1"),
        ({"fs.s3a.endpoint": "s3.amazonaws.com"}, "aws", "us-east-1"),
        ({"fs.s3a.endpoint": "s3.eu-west-3.amazonaws.com"}, "aws", "eu-west-3"),
        ({"fs.s3a.endpoint": "https://s3-us-gov-west-1.amazonaws.com"}, "aws", "us-gov-west-1"),
        ({"fs.s3a.access.key": "half of a pair"}, "aws", "us-east-1"),
        (KEYS, "https://s3.us-east-1.amazonaws.com", "us-east-1"),
        (
            KEYS | {"fs.s3a.endpoint.region": "eu-west-3"},
            "https://s3.eu-west-3.amazonaws.com",
            "eu-west-3",
        ),
        (KEYS | {"fs.s3a.endpoint": "minio:9000"}, "https://minio:9000", "us-east-1"),
        (
            KEYS | {"fs.s3a.endpoint": "minio:9000", "fs.s3a.connection.ssl.enabled": "false"},
            "http://minio:9000",
            "us-east-1",
        ),
    ],
)
def test_store_of_a_session_that_others_configured(configuration, endpoint, region) -> None:
    settings = Storage.from_hadoop_configuration(configuration.get).settings
    assert (settings.endpoint, settings.region) == (endpoint, region)
    if endpoint != "aws":
        assert settings.credentials() == ("k", "s")


def test_temporary_credentials_of_a_session_are_refused() -> None:
    configuration = KEYS | {"fs.s3a.session.token": "the-token"}
    with pytest.raises(RequestError, match="AWS_SESSION_TOKEN") as refused:
        Storage.from_hadoop_configuration(configuration.get)
    assert "the-token" not in str(refused.value)


def test_files_are_the_objects_directly_below_a_location(storage: Storage) -> None:
    folder = storage.location("test-storage", "files")
    for name in ("b.txt", "a/c.txt", "a.txt", "a-b/d.txt"):
        storage.write(folder / name, b"12")
    files = [(entry.location, entry.size) for entry in storage.files(folder)]
    assert files == [(folder / "a.txt", 2), (folder / "b.txt", 2)]
    assert storage.files(folder / "none") == []


@pytest.mark.parametrize(
    ("a", "b", "overlap"),
    [
        ("s3a://b/images", "s3a://b/images/x", True),
        ("s3a://b/images/x", "s3a://b/images", True),
        ("s3a://b/images", "s3a://b/images2", False),
        ("s3a://b", "s3a://b/x", True),
        ("s3a://b/x", "s3a://c/x", False),
    ],
)
def test_locations_overlap_by_whole_names(a: str, b: str, overlap: bool) -> None:  # noqa: FBT001
    assert Location.parse(a).overlaps(Location.parse(b)) is overlap


def test_a_bucket_is_no_object(storage):
    assert not storage.exists(Location(storage.name))
