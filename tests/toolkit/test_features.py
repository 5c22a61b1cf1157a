"""Images -> vectors on the standalone cluster."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from toolkit.features import Featurizer, _in_flight, _partitions, featurize
from toolkit.folders import cache_folder
from toolkit.images.decode import decode_image
from toolkit.images.listing import ImageObject
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
    location = storage.location("models", "prepared", model.key)
    return Featurizer(model, storage, location, cache_folder() / "prepared")


def test_every_image_is_a_vector_or_has_a_reason(spark, images, featurizer, contents) -> None:
    rows = featurize(spark, images, featurizer=featurizer, slots=1).collect()

    assert [row.origin for row in rows] == [image.origin for image in images]
    reasons = {row.origin.rpartition("/")[2]: row.reason for row in rows if row.reason}
    assert set(reasons) == {"truncated.jpg", "zero bytes.jpg", "text.jpg", "gone.jpg"}
    assert "truncated" in reasons["truncated.jpg"]
    assert "empty" in reasons["zero bytes.jpg"]
    assert "not an image" in reasons["text.jpg"]
    assert "disappeared" in reasons["gone.jpg"]
    for row in rows:
        assert (row.features is None) == (row.reason is not None)

    vectors = np.array([row.features for row in rows if row.features])
    engine = load_engine(featurizer.model, threads=1)
    pixels = [decode_image(contents[f"good {i}.png"], size=engine.input_size) for i in range(40)]
    np.testing.assert_allclose(vectors, engine.featurize(np.stack(pixels)), atol=1e-4)
    assert vectors.std(axis=0).max() > 0.1  # different images, different vectors


def test_executor_without_the_model_fetches_it_from_the_bucket(
    spark, images, featurizer, storage, tmp_path
) -> None:
    for name in featurizer.model.files:
        file = cache_folder() / "prepared" / featurizer.model.key / name
        storage.upload(file, featurizer.model_location / name)
    elsewhere = Featurizer(featurizer.model, storage, featurizer.model_location, tmp_path)

    rows = featurize(spark, images[:2], featurizer=elsewhere, slots=1).collect()

    assert all(row.features for row in rows)
    fetched = {file.name for file in (tmp_path / featurizer.model.key).iterdir()}
    assert fetched == set(featurizer.model.files)


@pytest.mark.parametrize("count", [1, 31, 32, 33, 1_000, 20_000])
@pytest.mark.parametrize("slots", [1, 2, 8])
def test_partitions_hold_every_image_once_in_order(count: int, slots: int) -> None:
    images = [ImageObject(str(index), "label", 1) for index in range(count)]
    partitions = _partitions(images, slots)
    assert [int(origin) for part in partitions for origin, _ in part] == list(range(count))
    assert max(map(len, partitions)) <= 256


def test_work_in_flight_is_bounded_ordered_and_ends_with_its_reader() -> None:
    begun: list[int] = []

    def function(item: int) -> int:
        begun.append(item)
        return item

    results = _in_flight(function, iter(range(1_000)), threads=4, ahead=10)
    assert [next(results) for _ in range(20)] == list(range(20))
    results.close()
    assert len(begun) <= 30


def test_failure_of_one_item_reaches_the_reader() -> None:
    def function(item: int) -> float:
        return 1 / (5 - item)

    with pytest.raises(ZeroDivisionError):
        list(_in_flight(function, range(10), threads=2, ahead=4))
