"""The run as a whole, on the standalone cluster and MinIO."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import TYPE_CHECKING

import duckdb
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from toolkit.errors import JobError, RequestError
from toolkit.pca import PCAModel
from toolkit.pipeline import RunRequest, run
from toolkit.runs import Owner, RunFolder, RunRecord, all_runs, find_run
from toolkit.storage import Location

if TYPE_CHECKING:
    from pathlib import Path

    from toolkit.storage import Storage

SAMPLES = "sample_images"
BAD_FILES = {
    "truncated.jpg": b"\xff\xd8\xff\xe0\x00\x10JFIF\x00",
    "zero bytes.jpg": b"",
    "text.jpg": b"Hello",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, sample_files: list[Path]) -> Path:
    """Return a folder of two dozen sample images of six classes, and three bad files."""
    root = tmp_path_factory.mktemp("images") / "mixed fruits"
    for file in sample_files:
        target = root / file.parent.name / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
    for name, content in BAD_FILES.items():
        (root / "Bad" / name).parent.mkdir(exist_ok=True)
        (root / "Bad" / name).write_bytes(content)
    return root


@pytest.fixture
def launch(spark, profile, tmp_path):
    """Return a function that runs the pipeline in the shared session."""

    def call(images: object, **options: object) -> RunRecord:
        request = RunRequest(images=str(images), **options)
        return run(request, profile, log=tmp_path / "driver.log", spark=spark)

    return call


@pytest.fixture(scope="module")
def record(spark, profile, folder, tmp_path_factory) -> RunRecord:
    """Return the record of one run that several tests look at."""
    log = tmp_path_factory.mktemp("log") / "driver.log"
    return run(RunRequest(images=str(folder)), profile, log=log, spark=spark)


def read_parquet(storage: Storage, uri: str) -> pd.DataFrame:
    """Read a dataset with pandas alone, as somebody without this package does."""
    parts = [
        pd.read_parquet(io.BytesIO(storage.read(entry.location)))
        for entry in storage.objects(Location.parse(uri))
        if entry.location.key.endswith(".parquet")
    ]
    return pd.concat(parts, ignore_index=True)


def test_every_listed_image_ends_in_exactly_one_place(record, storage, folder) -> None:
    result = read_parquet(storage, record.uris["result"])
    quarantine = read_parquet(storage, record.uris["quarantine"])

    assert record.status == "done"
    assert record.counts.listed == len(list(folder.rglob("*.jpg"))) == 27
    assert record.counts.featurized == len(result) == 24
    assert record.counts.quarantined == len(quarantine) == 3
    assert set(result["origin"]).isdisjoint(quarantine["origin"])
    reasons = {row.origin.rpartition("/")[2]: row.reason for row in quarantine.itertuples()}
    assert set(reasons) == set(BAD_FILES)
    assert all(reasons.values())


def test_result_has_the_contracts_columns_and_types(record, storage) -> None:
    types = {}
    for part in ("features", "result", "quarantine"):
        entry = next(
            entry
            for entry in storage.objects(Location.parse(record.uris[part]))
            if entry.location.key.endswith(".parquet")
        )
        schema = pq.read_schema(io.BytesIO(storage.read(entry.location)))
        types[part] = {field.name: str(field.type) for field in schema}
    assert types["features"] == {
        "origin": "string",
        "label": "string",
        "features": "list<element: float>",
    }
    assert types["result"] == {"origin": "string", "label": "string", "pca": "list<element: float>"}
    assert types["quarantine"] == {"origin": "string", "reason": "string"}
    result = read_parquet(storage, record.uris["result"])
    assert {len(vector) for vector in result["pca"]} == {record.components}
    assert all(row.origin.split("/")[-2] == row.label for row in result.itertuples())


def test_components_explain_95_percent_and_one_less_does_not(record, storage) -> None:
    vectors = np.stack(read_parquet(storage, record.uris["features"])["features"])
    variances = np.linalg.svd(vectors - vectors.mean(axis=0), compute_uv=False) ** 2
    cumulative = np.cumsum(variances / variances.sum())
    assert cumulative[record.components - 1] >= 0.95 > cumulative[record.components - 2]
    assert record.explained_variance == pytest.approx(cumulative[record.components - 1], rel=1e-6)
    pca = PCAModel.load(io.BytesIO(storage.read(Location.parse(record.uris["pca"]))))
    assert pca.components.shape == (record.components, 1280)


def test_duckdb_reads_the_result_over_s3(record, storage) -> None:
    key, secret = storage.settings.credentials()
    host = storage.settings.endpoint.removeprefix("http://")
    uri = record.uris["result"].replace("s3a://", "s3://")
    with duckdb.connect() as database:
        try:
            database.execute("LOAD httpfs")
        except duckdb.Error:  # DuckDB downloads that extension, and there may be no way to
            for entry in storage.objects(Location.parse(record.uris["result"])):
                if entry.location.key.endswith(".parquet"):
                    table = pq.read_table(io.BytesIO(storage.read(entry.location)))  # noqa: F841
                    rows = database.execute("SELECT count(*), min(len(pca)) FROM table").fetchall()
                    assert rows[0][1] == record.components
            return
        database.execute(
            f"CREATE SECRET (TYPE s3, KEY_ID '{key}', SECRET '{secret}', "
            f"ENDPOINT '{host}', URL_STYLE 'path', USE_SSL false)"
        )
        count = database.execute(f"SELECT count(*) FROM '{uri}/*.parquet'").fetchone()
        assert count == (record.counts.featurized,)


def test_output_is_committed_by_the_magic_committer(record, storage) -> None:
    for part in ("features", "result", "quarantine"):
        success = json.loads(storage.read(Location.parse(record.uris[part]) / "_SUCCESS"))
        assert success["committer"] == "magic"


def test_record_and_report_are_in_the_run_folder(record, storage) -> None:
    stored = RunFolder(storage, record.run_id).load()
    assert stored == record
    assert set(record.seconds) >= {"images", "model", "features", "pca", "result"}
    assert len(record.weights_sha256) == 64
    assert not record.random_weights
    assert record.versions["pyspark"]
    report = storage.read(Location.parse(record.uris["report"])).decode()
    assert record.run_id in report
    assert find_run(storage, record.run_id[:-2]).run_id == record.run_id


def test_second_run_gives_the_same_numbers(record, launch, folder, storage) -> None:
    again = launch(folder)
    assert again.run_id != record.run_id
    first = read_parquet(storage, record.uris["result"]).set_index("origin")
    second = read_parquet(storage, again.uris["result"]).set_index("origin")
    for origin, row in first.iterrows():
        np.testing.assert_allclose(row["pca"], second.loc[origin, "pca"], rtol=1e-4, atol=1e-4)


def test_failed_run_is_continued_without_featurizing_again(launch, folder, storage) -> None:
    with pytest.raises(RequestError, match="500"):
        launch(folder, components=500, limit=20)
    failed = next(all_runs(storage))
    assert failed.status == "failed"
    assert "500" in failed.error

    continued = launch(folder, limit=20)

    assert continued.run_id == failed.run_id
    assert continued.counts.listed == 20
    assert continued.images_per_second is None  # nothing was left to do
    fresh = launch(folder, limit=20, fresh=True)
    assert fresh.run_id != failed.run_id


def test_running_run_of_a_living_process_is_not_taken_over(launch, folder, storage) -> None:
    done = launch(folder, limit=9)
    running = replace(done, status="running", finished_at=None)
    RunFolder(storage, running.run_id).save(running)
    assert launch(folder, limit=9).run_id != running.run_id

    dead = replace(running, run_id=running.run_id, owner=Owner(running.owner.host, 1 << 30, 1.0))
    for record in all_runs(storage):
        if record.fingerprint == dead.fingerprint and record.run_id != dead.run_id:
            storage.delete_all(RunFolder(storage, record.run_id).location)
    RunFolder(storage, dead.run_id).save(dead)
    assert launch(folder, limit=9).run_id == dead.run_id


def test_folder_without_one_readable_image_fails_and_says_why(launch, tmp_path, storage) -> None:
    root = tmp_path / "unreadable"
    (root / "Bad").mkdir(parents=True)
    for name, content in BAD_FILES.items():
        (root / "Bad" / name).write_bytes(content)
    with pytest.raises(JobError, match="None of the 3 images") as failed:
        launch(root)
    assert "empty" in failed.value.message
    assert next(all_runs(storage)).status == "failed"


def test_output_moves_the_result(launch, folder, storage) -> None:
    target = storage.location("elsewhere", "result")
    record = launch(folder, limit=10, output=target.uri)
    assert record.uris["result"] == target.uri
    assert len(read_parquet(storage, target.uri)) == record.counts.featurized


def test_bucket_uri_is_read_as_it_is(record, launch) -> None:
    again = launch(record.images, components=3)
    assert again.images == record.images
    assert again.components == 3
    assert again.counts == record.counts
