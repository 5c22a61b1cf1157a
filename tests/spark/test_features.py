"""Images -> vectors on the standalone cluster."""

from __future__ import annotations

import io
import threading
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyspark import TaskContext

from toolkit import features
from toolkit.dataset import Dataset, matrix
from toolkit.errors import JobError
from toolkit.features import FeaturizeParts, Featurizer
from toolkit.folders import cache_folder
from toolkit.images.decode import decode_image
from toolkit.images.listing import ImageObject
from toolkit.jobs import run_tasks
from toolkit.models import load_engine, model_spec, prepare, resolve_weights
from toolkit.parts import Part, plan_parts, plan_tasks
from toolkit.storage import Location

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
    written = Dataset(storage, storage.location("test-features-written"))
    parts = plan_parts(images, count=len(images), multiply_adds=1e9)
    tasks = plan_tasks(parts, count=len(images), slots=lambda: 1)

    each = run_tasks(spark, tasks, FeaturizeParts(featurizer, written))
    done = list(chain.from_iterable(each))

    assert [part.number for part in done] == [0, 1] == [file.number for file in written.files()]
    reasons = {
        origin.rpartition("/")[2]: reason for part in done for origin, reason in part.unreadable
    }
    assert set(reasons) == {"truncated.jpg", "zero bytes.jpg", "text.jpg", "gone.jpg"}
    assert "truncated" in reasons["truncated.jpg"]
    assert "empty" in reasons["zero bytes.jpg"]
    assert "not an image" in reasons["text.jpg"]
    assert "disappeared" in reasons["gone.jpg"]

    table = pa.concat_tables(written.tables())
    assert sum(part.featurized for part in done) == table.num_rows == 40
    assert table["origin"].to_pylist() == [image.origin for image in images[:40]]
    vectors = matrix(table["features"], dimensions=1280)
    engine = load_engine(featurizer.model, threads=1)
    pixels = [decode_image(contents[f"good {i}.png"], size=engine.input_size) for i in range(40)]
    np.testing.assert_allclose(vectors, engine.compute(np.stack(pixels)), atol=1e-4)
    assert vectors.std(axis=0).max() > 0.1  # different images, different vectors


def test_part_of_an_earlier_attempt_is_kept_only_if_it_is_all_there(
    images, featurizer, storage
) -> None:
    task = FeaturizeParts(featurizer, Dataset(storage, storage.location("test-features-kept")))
    part = Part(0, tuple(images[38:]), attempted=True)
    (first,), (second,) = task([part]), task([part])
    assert (first.featurized, len(first.unreadable), first.reused) == (2, 4, False)
    assert second == replace(first, reused=True)

    longer = Part(0, tuple(images[37:]), attempted=True)
    assert not task([longer])[0].reused
    assert task([longer])[0].reused

    file = storage.location("test-features-kept", "part-0000000.parquet")
    storage.write(file, storage.read(file)[:-9])
    assert not task([longer])[0].reused


def test_parts_of_a_task_are_each_a_file_and_told_in_their_order(
    images, featurizer, contents, storage
) -> None:
    written = Dataset(storage, storage.location("test-features-several"))
    task = FeaturizeParts(featurizer, written)
    task([Part(1, tuple(images[5:10]))])  # an earlier attempt
    parts = [
        Part(0, tuple(images[:5]), attempted=True),
        Part(1, tuple(images[5:10]), attempted=True),
        Part(2, tuple(images[40:]), attempted=True),  # nothing of it can be read
        Part(3, tuple(images[10:17]), attempted=True),
    ]

    done = task(parts)

    assert (
        [part.number for part in done] == [0, 1, 2, 3] == [file.number for file in written.files()]
    )
    assert [part.reused for part in done] == [False, True, False, False]
    assert [(part.featurized, len(part.unreadable)) for part in done] == [
        (5, 0),
        (5, 0),
        (0, 4),
        (7, 0),
    ]
    engine = load_engine(featurizer.model, threads=1)
    for part, each in zip(parts, done, strict=True):
        table = written.read(part.number)
        readable = part.images[: each.featurized]
        assert table["origin"].to_pylist() == [image.origin for image in readable]
        if readable:
            files = [contents[image.origin.rpartition("/")[2]] for image in readable]
            pixels = [decode_image(file, size=engine.input_size) for file in files]
            vectors = matrix(table["features"], dimensions=engine.dimensions)
            np.testing.assert_array_equal(vectors, engine.compute(np.stack(pixels)))


def test_part_with_a_slow_image_comes_after_the_next_with_its_own_vectors(
    images, featurizer, monkeypatch
) -> None:
    expected = {part.part.number: part.vectors for part in featurizer(two_parts(images))}
    load = features._Loader.__call__
    next_is_done = threading.Event()

    def slow(loader: object, place: features._Place) -> features._Loaded:
        if place.image == images[0]:
            assert next_is_done.wait(60)
        return load(loader, place)

    monkeypatch.setattr(features._Loader, "__call__", slow)
    done = featurizer(two_parts(images))
    first = next(done)
    next_is_done.set()
    (second,) = done
    assert [first.part.number, second.part.number] == [1, 0]
    for each in (first, second):
        np.testing.assert_array_equal(each.vectors, expected[each.part.number])


def two_parts(images: list[ImageObject]) -> list[Part]:
    """Return parts that fill batches of two without the first image."""
    return [Part(0, tuple(images[:5])), Part(1, tuple(images[5:13]))]


def test_task_that_spark_repeats_keeps_the_parts_it_has_written(
    spark, images, featurizer, storage
) -> None:
    class FailsOnce(Dataset):  # in here, so that it travels to the executor
        def write(self, number: int, table: pa.Table, *, metadata=None) -> None:
            # At the second part, which may be either: a part is done with its slowest image.
            if TaskContext.get().attemptNumber() == 0 and self.files():
                raise OSError("the store is away for a moment")
            Dataset.write(self, number, table, metadata=metadata)

    written = FailsOnce(storage, storage.location("test-features-repeated"))
    task = tuple(two_parts(images))
    (done,) = run_tasks(spark, [task], FeaturizeParts(featurizer, written))
    assert [part.featurized for part in done] == [5, 8]
    assert sorted(part.reused for part in done) == [False, True]
    written.clear()


def test_no_network_is_loaded_where_nothing_is_left_to_do(images, featurizer, storage) -> None:
    written = Dataset(storage, storage.location("test-features-all-there"))
    part = Part(0, tuple(images[:3]), attempted=True)
    FeaturizeParts(featurizer, written)([part])
    without = replace(featurizer, model=replace(featurizer.model, folder="/nowhere", key="none"))
    (done,) = FeaturizeParts(without, written)([part])
    assert done.reused


def test_part_that_cannot_be_written_fails_its_task(images, featurizer, storage) -> None:
    nowhere = Dataset(storage, Location("no-such-bucket-anywhere", "features"))
    task = FeaturizeParts(featurizer, nowhere)
    with pytest.raises(JobError, match="no-such-bucket-anywhere"):
        task([Part(0, tuple(images[:2])), Part(1, tuple(images[2:4]))])


def test_executor_without_the_model_fetches_it_from_the_bucket(
    images, featurizer, storage, tmp_path
) -> None:
    for name in featurizer.model.files:
        file = cache_folder() / "prepared" / featurizer.model.key / name
        storage.upload(file, storage.location("models", "prepared", featurizer.model.key, name))
    elsewhere = replace(featurizer, cache=tmp_path)

    (done,) = elsewhere([Part(0, tuple(images[:2]))])

    assert not done.reasons
    fetched = {file.name for file in (tmp_path / "prepared" / featurizer.model.key).iterdir()}
    assert fetched == set(featurizer.model.files)
