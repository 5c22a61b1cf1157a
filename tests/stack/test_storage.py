"""The object store, on a real MinIO."""

from __future__ import annotations

import hashlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest
from botocore.tokens import SSOTokenProvider
from pydantic import SecretStr

from localstack.imds import RoleCredentials, role_credentials
from localstack.minio import Credentials
from toolkit.errors import JobError
from toolkit.profiles import S3Settings
from toolkit.storage import Location, ObjectNotFound, Storage, aws_variables_hidden

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

HARD_NAMES = ["a b/ü#1%20?x*[1].jpg", "é~&=+;,'.jpg", "tail ", "100%.png"]


@pytest.mark.parametrize("name", HARD_NAMES)
def test_any_name_round_trips_through_write_list_and_read(storage: Storage, name: str) -> None:
    folder = storage.location("test-storage", "names")
    storage.write(folder / name, name.encode())
    listed = {entry.location for entry in storage.objects(folder)}
    assert folder / name in listed
    assert storage.read(folder / name) == name.encode()


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


def test_missing_object_is_told_from_an_unreachable_store(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toolkit.storage._RETRIES", 1)
    missing = storage.location("test-storage", "no-such-object")
    assert not storage.exists(missing)
    with pytest.raises(ObjectNotFound, match="no-such-object"):
        storage.read(missing)
    nobody = Storage(
        storage.settings.model_copy(update={"endpoint": "http://127.0.0.1:9"}),
    )
    with pytest.raises(JobError, match="can't be reached"):
        nobody.read(missing)


def test_bucket_that_there_is_not_is_named(storage: Storage) -> None:
    nowhere = Location("no-such-bucket-anywhere", "images")
    with pytest.raises(JobError, match="There is no bucket no-such-bucket-anywhere"):
        list(storage.objects(nowhere))


def test_wrong_credentials_are_said_to_be_denied(storage: Storage) -> None:
    wrong = Storage(
        storage.settings.model_copy(update={"secret_access_key": SecretStr("wrong-secret")})
    )
    with pytest.raises(JobError, match="denied"):
        wrong.read(storage.location("test-storage", "x"))


@pytest.fixture
def as_aws(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Storage]:
    """Return a function that gives a server as Amazon S3, with credentials of the environment."""

    def call(
        credentials: RoleCredentials | None = None, url: str = storage.settings.endpoint
    ) -> Storage:
        variables = {"AWS_ENDPOINT_URL_S3": url}
        if credentials is not None:
            variables |= {
                "AWS_ACCESS_KEY_ID": credentials.access_key_id,
                "AWS_SECRET_ACCESS_KEY": credentials.secret_access_key,
                "AWS_SESSION_TOKEN": credentials.session_token,
            }
            monkeypatch.delenv("AWS_PROFILE", raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr("toolkit.storage._OPEN_STORES", {})
        return Storage(S3Settings(endpoint="aws", bucket=storage.name))

    return call


@pytest.mark.parametrize(
    ("action", "asked"),
    [
        ("s3:ListBucket", lambda store, place: store.delete_all(place)),
        ("s3:ListBucket", lambda store, place: store.read(place)),
        ("s3:GetObject", lambda store, place: list(store.objects(place))),
        ("s3:GetObject", lambda store, place: store.files(place)),
        ("s3:GetObject", lambda store, place: store.folders(place)),
        ("s3:GetObject", lambda store, place: store.write(place, b"content")),
    ],
    ids=["batch of deletions", "read", "list", "files", "folders", "write"],
)
def test_whatever_the_policy_does_not_allow_is_said_to_be_denied(
    as_aws, storage: Storage, action: str, asked
) -> None:
    place = storage.location("test-storage", "denied")
    storage.write(place, b"content")
    allowed = {"Effect": "Allow", "Action": [action], "Resource": ["arn:aws:s3:::*"]}
    policy = {"Version": "2012-10-17", "Statement": [allowed]}
    root = Credentials(*storage.settings.credentials())
    limited = as_aws(role_credentials(storage.settings.endpoint, root, policy=policy))
    with pytest.raises(
        JobError, match=rf"^Access to {place.uri} is denied: .*Access Denied\."
    ) as no:
        asked(limited, place)
    assert "policy" in no.value.remedy
    assert "xml" not in no.value.message
    assert storage.read(place) == b"content"


@pytest.fixture
def expired() -> Iterator[str]:
    """Give the URL of a server that answers as S3 does to credentials whose time is over."""
    content = (
        b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>ExpiredToken</Code>'
        b"<Message>The provided token has expired.</Message></Error>"
    )

    class Expired(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(400)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_PUT = do_POST = do_HEAD = do_GET  # noqa: N815 - http.server's names

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Expired) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    "asked",
    [
        lambda store, place: store.read(place),
        lambda store, place: store.write(place, b"content"),
        lambda store, place: list(store.objects(place)),
        lambda store, place: store.files(place),
        lambda store, place: store.delete_all(place),
    ],
    ids=["read", "write", "list", "files", "delete"],
)
def test_expired_credentials_are_named_with_what_helps(as_aws, expired: str, asked) -> None:
    store = as_aws(RoleCredentials("ASIAOFTHEUSER0000000", "of-the-user", "old"), expired)
    place = store.location("key")
    with pytest.raises(JobError, match=rf"^The credentials for {place.uri} have expired\.") as no:
        asked(store, place)
    assert "aws sso login" in no.value.remedy
    assert "aws configure" in no.value.remedy


def test_refusal_without_a_word_makes_one_think_of_expired_credentials(
    as_aws, expired: str
) -> None:
    store = as_aws(RoleCredentials("ASIAOFTHEUSER0000000", "of-the-user", "old"), expired)
    with pytest.raises(JobError, match="400 Bad Request") as no:
        store.find(store.location("key"))
    assert "may have expired" in no.value.remedy


@pytest.mark.parametrize(
    ("cached", "said"),
    [
        ('{"accessToken": "old", "expiresAt": "2020-01-01T00:00:00Z"}', "have expired"),
        (None, "There are no credentials"),
    ],
)
def test_ended_session_of_the_single_sign_on_says_what_begins_another(
    as_aws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cached: str | None, said: str
) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setattr(SSOTokenProvider, "_SSO_TOKEN_CACHE_DIR", str(cache))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "work")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "config").write_text(
        "[profile work]\nsso_session = ours\nsso_account_id = 123456789012\n"
        "sso_role_name = Ann\nregion = us-east-1\n"
        "[sso-session ours]\nsso_start_url = https://ours.awsapps.com/start\n"
        "sso_region = us-east-1\n"
    )
    if cached:
        cache.mkdir()
        (cache / f"{hashlib.sha1(b'ours').hexdigest()}.json").write_text(cached)
    store = as_aws()
    with pytest.raises(JobError, match=said) as no:
        store.read(store.location("key"))
    assert "aws sso login" in no.value.remedy


def test_file_of_one_put_has_the_md5_as_its_etag(storage: Storage, tmp_path: Path) -> None:
    file = tmp_path / "large.jpg"
    file.write_bytes(bytes(range(256)) * 40_000)  # 10 MB, of which parts could be made
    target = storage.location("test-storage", "large.jpg")
    md5 = hashlib.md5(file.read_bytes()).hexdigest()
    assert storage.upload(file, target) == md5
    assert storage.upload(file, target, in_parts=True).endswith("-2")


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


def test_files_are_the_objects_directly_below_a_location(storage: Storage) -> None:
    folder = storage.location("test-storage", "files")
    for name in ("b.txt", "a/c.txt", "a.txt", "a-b/d.txt"):
        storage.write(folder / name, b"12")
    files = [(entry.location, entry.size) for entry in storage.files(folder)]
    assert files == [(folder / "a.txt", 2), (folder / "b.txt", 2)]
    assert storage.files(folder / "none") == []


def test_a_bucket_is_no_object(storage):
    assert not storage.exists(Location(storage.name))
