"""Files as rows, in portions that memory holds."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from pyspark.sql.pandas.types import to_arrow_schema

from toolkit.sparkdl.image import reading
from toolkit.sparkdl.image.rows import image_row
from toolkit.sparkdl.image.schema import IMAGE_SCHEMA

if TYPE_CHECKING:
    from pathlib import Path


def files(folder: Path, count: int) -> pa.RecordBatch:
    for number in range(count):
        (folder / f"{number:03}").write_bytes(bytes([number]))
    uris = [f"file://{file}" for file in sorted(folder.iterdir())]
    return pa.record_batch({"uri": uris, "size": [1] * count})


def test_rows_leave_in_portions_that_grow_to_a_bound(tmp_path: Path) -> None:
    def image_of_a_mebibyte(uri: str, content: bytes) -> tuple:
        return (image_row(np.full((1, 1 << 20, 1), content[0], np.uint8), uri),)

    schema = to_arrow_schema(IMAGE_SCHEMA)
    batch = files(tmp_path, 100)
    portions = list(reading._Reader(None, image_of_a_mebibyte, schema).read([batch]))
    assert portions[0].num_rows == 1
    assert max(portion.num_rows for portion in portions) == 32
    assert all(portion.schema == schema for portion in portions)
    rows = pa.Table.from_batches(portions)["image"].to_pylist()
    assert [row["origin"] for row in rows] == batch["uri"].to_pylist()
    assert [row["data"][0] for row in rows] == list(range(100))


def test_rows_of_no_bytes_leave_in_portions_too(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(reading, "_FIRST_PORTION_BYTES", 150 * reading._ROW_BYTES)
    schema = pa.schema([("uri", pa.string())])
    reader = reading._Reader(None, lambda uri, _: (uri,), schema)
    portions = list(reader.read([files(tmp_path, 50)] * 4))
    assert sum(portion.num_rows for portion in portions) == 200
    assert portions[0].num_rows <= 150


def test_what_the_disk_does_not_give_is_empty_and_told(tmp_path: Path, monkeypatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(reading._log, "warning", lambda text, *values: told.append(text % values))
    batch = pa.record_batch({"uri": [f"file://{tmp_path}"], "size": [1]})  # a folder
    schema = pa.schema([("content", pa.binary())])
    (portion,) = reading._Reader(None, lambda _, content: (content,), schema).read([batch])
    assert portion["content"].to_pylist() == [b""]
    assert told == [f"file://{tmp_path} can't be read: Is a directory"]


def test_no_files_give_one_empty_batch() -> None:
    schema = to_arrow_schema(IMAGE_SCHEMA)
    (portion,) = reading._Reader(None, lambda uri, _: (uri,), schema).read([])
    assert portion.num_rows == 0
    assert portion.schema == schema


def test_choice_of_a_file_depends_on_its_name_and_the_seed_alone() -> None:
    draws = [reading._draw(f"file:///{number}", 7) for number in range(1_000)]
    assert draws == [reading._draw(f"file:///{number}", 7) for number in range(1_000)]
    assert 0 <= min(draws) < 0.01
    assert 0.99 < max(draws) <= 1
    assert abs(np.corrcoef([*pairwise(draws)], rowvar=False)[0, 1]) < 0.1
    assert reading._draw("file:///1", 8) != draws[1]
