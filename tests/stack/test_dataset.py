"""Parquet parts in the real object store."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from numpy.testing import assert_array_equal

from toolkit.dataset import SUCCESS, DamagedPart, Dataset, matrix, vectors_column
from toolkit.storage import ObjectNotFound

VECTORS = np.arange(12, dtype=np.float32).reshape(4, 3)


@pytest.fixture
def dataset(storage) -> Dataset:
    """Return an empty dataset."""
    dataset = Dataset(storage, storage.location("test-dataset"))
    yield dataset
    dataset.clear()


def table(*names: str) -> pa.Table:
    return pa.table({"origin": pa.array(names, pa.string())})


def test_part_is_read_as_it_was_written(dataset) -> None:
    rows = pa.table({"origin": list("abcd"), "features": vectors_column(VECTORS)})
    dataset.write(3, rows, metadata={"note": "é"})
    back = dataset.read(3)
    assert back["origin"].to_pylist() == list("abcd")
    assert_array_equal(matrix(back["features"], dimensions=3), VECTORS)
    assert back.schema.metadata[b"note"].decode() == "é"
    assert dataset.read(3, columns=["origin"]).column_names == ["origin"]


def test_part_written_again_replaces_itself(dataset) -> None:
    dataset.write(0, table("first"))
    dataset.write(0, table("second"))
    assert [each["origin"].to_pylist() for each in dataset.tables()] == [["second"]]


def test_parts_are_listed_in_order_and_other_objects_are_none(dataset) -> None:
    for number in (2, 0, 11, 1_000_000):
        dataset.write(number, table(str(number)))
    dataset.complete()
    dataset.storage.write(dataset.location / "part-foreign.parquet.txt", b"")
    assert [file.number for file in dataset.files()] == [0, 2, 11, 1_000_000]
    names = [each["origin"][0].as_py() for each in dataset.tables()]
    assert names == ["0", "2", "11", "1000000"]


def test_mark_is_there_when_the_dataset_is_complete(dataset) -> None:
    assert not dataset.storage.exists(dataset.location / SUCCESS)
    dataset.complete()
    assert dataset.storage.exists(dataset.location / SUCCESS)


def test_cleared_dataset_is_empty(dataset) -> None:
    dataset.write(0, table("a"))
    dataset.complete()
    dataset.clear()
    assert list(dataset.storage.objects(dataset.location)) == []


def test_missing_part_is_not_found(dataset) -> None:
    with pytest.raises(ObjectNotFound):
        dataset.read(7)


def cut(file: bytes) -> bytes:
    return file[:-5]


def flipped(file: bytes) -> bytes:
    return file[:4] + bytes(255 - each for each in file[4:40]) + file[40:]


@pytest.mark.parametrize("damage", [cut, flipped])
def test_damaged_file_is_an_error_that_names_it(dataset, damage) -> None:
    dataset.write(0, table("a"))
    file = dataset.location / "part-0000000.parquet"
    dataset.storage.write(file, damage(dataset.storage.read(file)))
    with pytest.raises(DamagedPart, match=r"part-0000000\.parquet can't be read"):
        dataset.read(0)


def test_pandas_reads_a_part(dataset, tmp_path) -> None:
    dataset.write(0, pa.table({"features": vectors_column(VECTORS)}))
    dataset.storage.download(dataset.location / "part-0000000.parquet", tmp_path / "part.parquet")
    frame = pd.read_parquet(tmp_path / "part.parquet")
    assert_array_equal(np.stack(frame["features"]), VECTORS)
