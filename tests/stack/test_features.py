"""Images of the store -> vectors, in this process."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest

from tests.support.feature_images import contents, featurizer, images, two_parts
from toolkit import features
from toolkit.dataset import Dataset, matrix
from toolkit.errors import JobError
from toolkit.features import FeaturizeParts
from toolkit.folders import cache_folder
from toolkit.images.decode import decode_image
from toolkit.models import load_engine
from toolkit.parts import Part
from toolkit.storage import Location

__all__ = ["contents", "featurizer", "images"]


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
