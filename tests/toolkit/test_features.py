"""Images -> vectors on the standalone cluster."""

from __future__ import annotations

import io
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from toolkit.dataset import Dataset, matrix
from toolkit.errors import JobError
from toolkit.features import FeaturizePart, Featurizer, Part, _as_completed, _Loaded, plan_parts
from toolkit.folders import cache_folder
from toolkit.images.decode import decode_image
from toolkit.images.listing import ImageObject
from toolkit.jobs import run_tasks
from toolkit.models import load_engine, model_spec, prepare, resolve_weights

if TYPE_CHECKING:
    from toolkit.storage import Storage


def png(colour: tuple[int, int, int]) -> bytes:
    file = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").resize((40, 30)).save(file, format="PNG")
    image = Image.new("RGB", (40, 30), colour)
    image.paste(Image.open(file), (0, 10))
    file = io.BytesIO()
    image.save(file, format="PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def contents() -> dict[str, bytes]:
    good = {f"good {index}.png": png((index * 5, 255 - index * 5, 128)) for index in range(40)}
    return good | {
        "truncated.jpg": good["good 3.png"][:90],
        "zero bytes.jpg": b"",
        "text.jpg": b"Hello, I am no image.",
    }


@pytest.fixture(scope="module")
def images(storage: Storage, contents: dict[str, bytes]) -> list[ImageObject]:
    folder = storage.location("test-features", "label")
    for name, content in contents.items():
        storage.write(folder / name, content)
    listed = [
        ImageObject((folder / name).uri, "label", len(content))
        for name, content in contents.items()
    ]
    return [*listed, ImageObject((folder / "gone.jpg").uri, "label", 9)]


@pytest.fixture(scope="module")
def featurizer(storage: Storage) -> Featurizer:
    spec = model_spec("EfficientNetLite0")
    weights = resolve_weights(spec, "imagenet", cache=cache_folder())
    model = prepare(spec, weights, engine="openvino", precision="f32", cache=cache_folder())
    return Featurizer(model, storage, cache_folder())


def test_every_image_is_a_vector_or_has_a_reason(
    spark, images, featurizer, contents, storage
) -> None:
    features = Dataset(storage, storage.location("test-features-written"))
    parts = plan_parts(images, count=len(images), multiply_adds=1e9)

    done = list(run_tasks(spark, parts, FeaturizePart(featurizer, features)))

    assert [part.number for part in done] == [0, 1] == features.numbers()
    reasons = {
        origin.rpartition("/")[2]: reason for part in done for origin, reason in part.unreadable
    }
    assert set(reasons) == {"truncated.jpg", "zero bytes.jpg", "text.jpg", "gone.jpg"}
    assert "truncated" in reasons["truncated.jpg"]
    assert "empty" in reasons["zero bytes.jpg"]
    assert "not an image" in reasons["text.jpg"]
    assert "disappeared" in reasons["gone.jpg"]

    table = pa.concat_tables(features.tables())
    assert sum(part.featurized for part in done) == table.num_rows == 40
    assert table["origin"].to_pylist() == [image.origin for image in images[:40]]
    vectors = matrix(table["features"], dimensions=1280)
    engine = load_engine(featurizer.model, threads=1)
    pixels = [decode_image(contents[f"good {i}.png"], size=engine.input_size) for i in range(40)]
    np.testing.assert_allclose(vectors, engine.featurize(np.stack(pixels)), atol=1e-4)
    assert vectors.std(axis=0).max() > 0.1  # different images, different vectors


def test_part_of_an_earlier_attempt_is_kept_only_if_it_is_all_there(
    images, featurizer, storage
) -> None:
    task = FeaturizePart(featurizer, Dataset(storage, storage.location("test-features-kept")))
    part = Part(0, tuple(images[38:]), attempted=True)
    first, second = task(part), task(part)
    assert (first.featurized, len(first.unreadable), first.reused) == (2, 4, False)
    assert second == replace(first, reused=True)

    longer = Part(0, tuple(images[37:]), attempted=True)
    assert not task(longer).reused
    assert task(longer).reused

    file = storage.location("test-features-kept", "part-0000000.parquet")
    storage.write(file, storage.read(file)[:-9])
    assert not task(longer).reused


def test_executor_without_the_model_fetches_it_from_the_bucket(
    images, featurizer, storage, tmp_path
) -> None:
    for name in featurizer.model.files:
        file = cache_folder() / "prepared" / featurizer.model.key / name
        storage.upload(file, storage.location("models", "prepared", featurizer.model.key, name))
    elsewhere = replace(featurizer, cache=tmp_path)

    _, reasons = elsewhere(images[:2])

    assert not reasons
    fetched = {file.name for file in (tmp_path / "prepared" / featurizer.model.key).iterdir()}
    assert fetched == set(featurizer.model.files)


def sized(count: int, size: int) -> list[ImageObject]:
    return [ImageObject(str(index), "label", size) for index in range(count)]


@pytest.mark.parametrize("count", [1, 31, 32, 33, 1_000, 20_000, 100_000])
@pytest.mark.parametrize("multiply_adds", [1e6, 4e8, 4e9, 2e10])
def test_parts_hold_every_image_once_in_order(count: int, multiply_adds: float) -> None:
    parts = list(plan_parts(sized(count, 1), count=count, multiply_adds=multiply_adds))
    assert [int(image.origin) for part in parts for image in part.images] == list(range(count))
    assert [part.number for part in parts] == list(range(len(parts)))
    assert max(len(part.images) for part in parts) <= 768
    assert len(parts) >= min(count // 24, 16)  # enough of them to share out


def test_costly_networks_have_smaller_parts() -> None:
    sizes = [
        len(next(plan_parts(sized(100_000, 1), count=100_000, multiply_adds=cost)).images)
        for cost in (2e8, 8e8, 4e9)
    ]
    assert sizes == [768, 480, 96]


def test_parts_are_bounded_by_bytes_too() -> None:
    photos = sized(100, 10 << 20)
    parts = list(plan_parts(photos, count=100, multiply_adds=1e9))
    assert {len(part.images) for part in parts} <= {6, 4}
    huge = list(plan_parts(sized(3, 500 << 20), count=3, multiply_adds=1e9))
    assert [len(part.images) for part in huge] == [1, 1, 1]


def loaded(index: int, _: ImageObject) -> _Loaded:
    return _Loaded(index)


def test_work_in_flight_is_bounded_and_ends_with_its_reader() -> None:
    begun: list[int] = []

    def function(index: int, image: ImageObject) -> _Loaded:
        begun.append(index)
        return loaded(index, image)

    results = _as_completed(function, sized(1_000, 1), threads=4, ahead=10, bytes_ahead=1 << 30)
    first = [next(results).place for _ in range(20)]
    results.close()
    assert len(set(first)) == 20
    assert len(begun) <= 30


def test_bytes_in_flight_are_bounded_but_one_image_may_be_larger() -> None:
    flying: set[int] = set()
    most: list[int] = []

    def function(index: int, image: ImageObject) -> _Loaded:
        flying.add(index)
        most.append(len(flying))
        time.sleep(0.01)
        flying.discard(index)
        return loaded(index, image)

    images = [*sized(20, 40), ImageObject("large", "label", 1_000), *sized(5, 40)]
    done = list(_as_completed(function, images, threads=16, ahead=100, bytes_ahead=100))
    assert sorted(item.place for item in done) == list(range(26))
    assert max(most) == 2


def test_slow_image_keeps_no_other_waiting() -> None:
    slow = threading.Event()

    def function(index: int, image: ImageObject) -> _Loaded:
        if index == 0:
            slow.wait(30)
        return loaded(index, image)

    results = _as_completed(function, sized(50, 1), threads=4, ahead=10, bytes_ahead=100)
    others = [next(results).place for _ in range(49)]
    slow.set()
    assert 0 not in others
    assert next(results).place == 0


def test_failure_of_one_image_reaches_the_reader() -> None:
    def function(index: int, image: ImageObject) -> _Loaded:
        if index == 5:
            raise JobError("the store said no")
        return loaded(index, image)

    with pytest.raises(JobError, match="said no"):
        list(_as_completed(function, sized(10, 1), threads=2, ahead=4, bytes_ahead=100))
