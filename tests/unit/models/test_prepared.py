"""A converted network is found by all that it depends on: in the cache, then in the bucket."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.support.tiny_network import convert_to_tiny
from toolkit.errors import JobError, RequestError
from toolkit.models import (
    Calibration,
    PreparedModel,
    fetch_prepared,
    load_engine,
    model_spec,
    nncf_import,
    prepare,
    prepared,
    resolve_weights,
)

if TYPE_CHECKING:
    from toolkit.models.conversion import Converted

SPEC = model_spec("EfficientNetLite0")


def find(cache: Path, **options: Any) -> PreparedModel:
    return prepare(SPEC, resolve_weights(SPEC, "imagenet", cache=cache), cache=cache, **options)


@pytest.fixture(scope="module")
def default(tmp_path_factory: pytest.TempPathFactory) -> PreparedModel:
    """Return a tiny network that was prepared under the name of the default one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepared, "convert", convert_to_tiny)
        return find(tmp_path_factory.mktemp("driver"))


@dataclass
class Bucket:
    """An object store in a dict, which notes what it is asked for."""

    objects: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    name: str = "fruits"

    def fetch(self, uri: str, to: Path) -> bool:
        self.asked.append(uri)
        if uri in self.objects:
            to.write_bytes(self.objects[uri])
        return uri in self.objects


def uri(model: PreparedModel, name: str) -> str:
    return f"s3a://fruits/models/prepared/{model.key}/{name}"


@pytest.fixture
def bucket(default: PreparedModel) -> Bucket:
    folder = Path(default.folder)
    return Bucket({uri(default, name): (folder / name).read_bytes() for name in default.files})


class ConvertedError(Exception):
    """The network is being converted."""


@pytest.fixture(autouse=True)
def no_conversion(default: PreparedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail at a conversion, which takes ten seconds, and TensorFlow."""

    def convert(*arguments: object, **options: object) -> None:
        raise ConvertedError

    monkeypatch.setattr(prepared, "convert", convert)


def left_in(folder: Path) -> list[str]:
    return [path.name for path in (folder / "prepared").iterdir()]


def test_a_machine_with_an_empty_cache_takes_the_network_from_the_bucket(default, bucket, tmp_path):
    found = find(tmp_path, bucket=bucket)
    assert found == replace(default, folder=str(tmp_path / "prepared" / default.key))
    assert left_in(tmp_path) == [default.key]
    pixels = np.full((1, 224, 224, 3), 9, np.uint8)
    np.testing.assert_array_equal(
        load_engine(found, threads=1).compute(pixels),
        load_engine(default, threads=1).compute(pixels),
    )


def test_the_bucket_is_asked_once_then_the_cache_answers(bucket, tmp_path):
    find(tmp_path, bucket=bucket)
    asked = len(bucket.asked)
    assert asked == 3
    find(tmp_path, bucket=bucket)
    assert len(bucket.asked) == asked


def test_a_network_that_is_not_in_the_bucket_is_converted(tmp_path):
    empty = Bucket()
    with pytest.raises(ConvertedError):
        find(tmp_path, bucket=empty)
    assert len(empty.asked) == 1  # one request tells
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("name", ["model.xml", "model.bin", "model.json"])
@pytest.mark.parametrize("damage", ["missing", "cut", "changed"])
def test_a_damaged_network_in_the_bucket_is_passed_over(default, bucket, tmp_path, name, damage):
    content = bucket.objects.pop(uri(default, name))
    if damage == "cut":
        bucket.objects[uri(default, name)] = content[:-10]
    if damage == "changed":
        bucket.objects[uri(default, name)] = content[:-10] + b"0123456789"
    with pytest.raises(ConvertedError):
        find(tmp_path, bucket=bucket)
    assert left_in(tmp_path) == []


def test_a_folder_that_lacks_files_is_made_anew(default, bucket, tmp_path):
    folder = tmp_path / "prepared" / default.key
    folder.mkdir(parents=True)
    (folder / "model.json").write_text("{}")
    assert find(tmp_path, bucket=bucket).folder == str(folder)
    assert sorted(path.name for path in folder.iterdir()) == sorted(default.files)


def test_an_executor_fetches_what_the_driver_prepared(default, bucket, tmp_path):
    fetched = fetch_prepared(default, cache=tmp_path, bucket=bucket)
    assert Path(fetched.folder).parent == tmp_path / "prepared"
    load_engine(fetched, threads=1)
    bucket.objects.clear()
    assert fetch_prepared(default, cache=tmp_path, bucket=bucket) == fetched


def test_an_executor_never_runs_a_damaged_network(default, bucket, tmp_path):
    bucket.objects[uri(default, "model.bin")] += b"more"
    with pytest.raises(JobError, match=f"models/prepared/{default.key} is missing or damaged"):
        fetch_prepared(default, cache=tmp_path, bucket=bucket)
    assert left_in(tmp_path) == []


def test_the_record_names_what_people_ask(default):
    record = json.loads((Path(default.folder) / "model.json").read_text())
    assert record["input_size"] == [224, 224]
    assert record["multiply_adds"] == default.multiply_adds
    assert set(record["sha256"]) == {"model.xml", "model.bin"}


def calibration(identity: str = "these") -> Calibration:
    return Calibration(identity=identity, images=lambda size: np.zeros((0, *size, 3), np.uint8))


def test_all_that_decides_on_the_files_is_in_the_key(tmp_path):
    """Where a network is looked for tells its key."""

    def key(name: str = SPEC.name, weights: str = "random:0", **options: Any) -> str:
        spec, store = model_spec(name), Bucket()
        found = resolve_weights(spec, weights, cache=tmp_path)
        with pytest.raises(ConvertedError):
            prepare(spec, found, cache=tmp_path, bucket=store, **options)
        return store.asked[0].split("/")[-2]

    keys = [
        key(),
        key(weights="imagenet"),
        key(weights="random:1"),
        key("MobileNetV2"),
        key(engine="tensorflow"),
        key(input_size=100),
        key(input_size=(100, 128)),
        key(input_size=(128, 100)),
        key(precision="int8", calibration=calibration()),
        key(precision="int8", calibration=calibration("others")),
        key(precision="int8", calibration=calibration(), input_size=100),
    ]
    assert len(set(keys)) == len(keys)
    # The same files serve every precision that is not in them, and a size however it is said.
    assert key(precision="f32") == key(precision="bf16") == key(input_size=224) == keys[0]
    assert key(calibration=calibration()) == keys[0]


def test_the_size_that_was_asked_for_travels_with_the_network(default, tmp_path):
    with pytest.raises(ConvertedError):
        find(tmp_path, input_size=100)
    assert default.input_size == (224, 224)
    with pytest.raises(RequestError, match="32 to 1024"):
        find(tmp_path, input_size=16)


def test_int8_without_nncf_names_the_package_to_install(monkeypatch, tmp_path):
    def version(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(nncf_import, "version", version)
    with pytest.raises(RequestError, match="needs the Python package nncf") as caught:
        find(tmp_path, precision="int8", calibration=calibration())
    assert "pip install 'fruits-toolkit[int8]'" in caught.value.remedy


def test_int8_without_images_is_refused(default):
    cache = Path(default.folder).parents[1]
    with pytest.raises(RequestError, match="needs images"):
        find(cache, precision="int8")
    with pytest.raises(RequestError, match="none can be read"):
        find(cache, precision="int8", calibration=calibration())


def test_two_may_prepare_the_same_network_at_once(default, tmp_path, monkeypatch):
    """Both convert before either is done: the first one's folder stays, and serves both."""
    both = threading.Barrier(2, timeout=60)

    def convert(*arguments: Any, **options: Any) -> Converted:
        converted = convert_to_tiny(*arguments, **options)
        both.wait()
        return converted

    monkeypatch.setattr(prepared, "convert", convert)
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(find, [tmp_path, tmp_path])
    assert one == other == replace(default, folder=str(tmp_path / "prepared" / default.key))
    assert left_in(tmp_path) == [default.key]
    load_engine(one, threads=1)
