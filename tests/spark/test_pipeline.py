"""The run as a whole, on the standalone cluster and MinIO."""

from __future__ import annotations

import io
import shutil
from dataclasses import replace

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.runs import launch, read_parquet
from tests.support.tiny_network import convert_to_tiny
from toolkit.errors import JobError, RequestError
from toolkit.models import DEFAULT_MODEL, model_spec, prepare, prepared, resolve_weights
from toolkit.pca import PCAModel
from toolkit.pipeline import _unfinished
from toolkit.runs import Counts, RunFolder, RunRecord, all_runs, find_run, new_run_id
from toolkit.storage import Location

__all__ = ["launch"]


def test_every_listed_image_ends_in_exactly_one_place(
    record, storage, mixed_folder, bad_files
) -> None:
    result = read_parquet(storage, record.uris["result"])
    quarantine = read_parquet(storage, record.uris["quarantine"])

    assert record.status == "done"
    assert record.counts.listed == len(list(mixed_folder.rglob("*.jpg"))) == 27
    assert record.counts.featurized == len(result) == 24
    assert record.counts.quarantined == len(quarantine) == 3
    assert set(result["origin"]).isdisjoint(quarantine["origin"])
    reasons = {row.origin.rpartition("/")[2]: row.reason for row in quarantine.itertuples()}
    assert set(reasons) == set(bad_files)
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


def test_duckdb_reads_the_result_without_this_package(record, storage, tmp_path) -> None:
    for entry in storage.objects(Location.parse(record.uris["result"])):
        if entry.location.key.endswith(".parquet"):
            storage.download(entry.location, tmp_path / entry.location.key.rpartition("/")[2])
    with duckdb.connect() as database:
        query = (
            f"SELECT count(*), count(DISTINCT origin), min(len(pca)) FROM '{tmp_path}/*.parquet'"
        )
        rows = database.execute(query).fetchall()
    assert rows == [(24, 24, record.components)]


def test_every_dataset_is_marked_as_complete(record, storage) -> None:
    for part in ("features", "result", "quarantine"):
        assert storage.exists(Location.parse(record.uris[part]) / "_SUCCESS")


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


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Return a network of 8 dimensions, ready, whose PCA takes no time."""
    cache = tmp_path_factory.mktemp("laptop")
    spec = model_spec(DEFAULT_MODEL)
    # A seed of these tests: the bucket and the executors keep networks by their keys.
    weights = resolve_weights(spec, "random:20221", cache=cache)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepared, "convert", convert_to_tiny)
        return prepare(spec, weights, input_size=96, cache=cache)


def test_failed_run_is_continued_with_the_parts_that_are_there(
    launch, tiny, mixed_folder, storage, monkeypatch
) -> None:
    monkeypatch.setattr("toolkit.parts._LEAST_IMAGES", 8)  # four parts
    with pytest.raises(RequestError, match="500"):
        launch(mixed_folder, network=tiny, components=500, fresh=True)
    failed = next(all_runs(storage))
    assert failed.status == "failed"
    assert "500" in failed.error
    # As a driver leaves it that dies earlier: a part is missing, and one can be told from anew.
    folder = RunFolder(storage, failed.run_id)
    features = folder.dataset("features")
    lost = features.read(1)
    storage.delete_all(features.location / "part-0000001.parquet")
    storage.delete_all(folder.file("quarantine"))
    kept = features.read(0)
    label = pa.array(["as it was"] * kept.num_rows)
    marked = kept.set_column(1, "label", label)
    features.write(
        0, marked, metadata={k.decode(): v.decode() for k, v in kept.schema.metadata.items()}
    )

    continued = launch(mixed_folder, network=tiny)

    assert continued.run_id == failed.run_id
    assert continued.counts == Counts(27, 24, 3)
    assert features.read(0)["label"].to_pylist() == label.to_pylist()
    assert features.read(1).equals(lost)
    assert continued.images_per_second > 0


def test_changed_image_begins_another_run(launch, tiny, mixed_folder, storage, tmp_path) -> None:
    root = tmp_path / "changing"
    shutil.copytree(mixed_folder / "Bad", root / "Bad")
    with pytest.raises(JobError, match="None of the 3 images") as refused:
        launch(root, network=tiny)
    assert "empty" in refused.value.message
    good = next(path for path in sorted(mixed_folder.rglob("*.jpg")) if path.parent.name != "Bad")
    shutil.copy(good, root / "Bad" / "text.jpg")  # mended in place
    failed = next(all_runs(storage))
    assert failed.status == "failed"
    with pytest.raises(JobError, match=r"at least two|variance"):
        launch(root, network=tiny)
    newest = next(all_runs(storage))
    assert newest.run_id != failed.run_id


def test_output_over_foreign_objects_is_refused(launch, mixed_folder, storage) -> None:
    target = storage.location("precious")
    storage.write(target / "thesis.txt", b"years of work")
    with pytest.raises(RequestError, match=r"thesis\.txt"):
        launch(mixed_folder, output=target.uri)
    assert storage.read(target / "thesis.txt") == b"years of work"


@pytest.fixture
def begun(record, storage) -> RunRecord:
    """Return a run of another request that its process has begun and not finished."""
    begun = replace(record, run_id=new_run_id(), status="running", fingerprint="of this test")
    RunFolder(storage, begun.run_id).save(begun)
    yield begun
    storage.delete_all(RunFolder(storage, begun.run_id).location)


def test_running_run_of_a_living_process_is_not_taken_over(begun, storage) -> None:
    assert _unfinished(storage, "of this test") is None


def test_running_run_on_another_host_is_not_taken_over(begun, storage) -> None:
    elsewhere = replace(begun, owner=replace(begun.owner, host="elsewhere", pid=1))
    RunFolder(storage, begun.run_id).save(elsewhere)
    assert _unfinished(storage, "of this test") is None


def test_run_whose_process_died_is_continued(begun, storage) -> None:
    another_process = replace(begun, owner=replace(begun.owner, started=1.0))
    RunFolder(storage, begun.run_id).save(another_process)
    assert _unfinished(storage, "of this test") == another_process
    assert _unfinished(storage, "of another request") is None


def test_finished_run_is_not_continued(begun, storage) -> None:
    RunFolder(storage, begun.run_id).save(replace(begun, status="done"))
    assert _unfinished(storage, "of this test") is None


def test_native_setting_has_no_price(record) -> None:
    assert (record.input_size, record.fidelity) == ((224, 224), None)


def test_ready_network_is_used_as_it_is_and_the_record_says_how(
    launch, tiny, mixed_folder, tmp_path, monkeypatch
) -> None:
    network = replace(tiny, precision="int8")
    # Of a file that is on another machine; whatever looks for one here fails.
    asked = {"weights": f"sha256:{'0' * 64}", "input_size": 96, "precision": "int8"}
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "node"))
    with pytest.raises(RequestError, match="500"):
        launch(mixed_folder, network=network, components=500, **asked)

    record = launch(mixed_folder, network=network, components=3, **asked)

    assert record.images_per_second is None  # it went on where the failed one had ended
    assert (record.weights, record.weights_sha256) == (asked["weights"], network.weights_sha256)
    assert (record.engine, record.input_size) == ("openvino", (96, 96))
    assert (record.precision, record.dimensions) == ("int8", 8)
    assert record.random_weights
    assert record.fidelity is None
    folders = (tmp_path / "node" / "prepared").iterdir()
    assert [folder.name for folder in folders] == [network.key]
    assert [folder.name for folder in (tmp_path / "node").iterdir()] == ["prepared"]


def test_spark_reads_features_and_result(record, spark) -> None:
    features = spark.read.parquet(record.uris["features"])
    assert features.dtypes == [
        ("origin", "string"),
        ("label", "string"),
        ("features", "array<float>"),
    ]
    assert features.count() == spark.read.parquet(record.uris["result"]).count() == 24


def test_second_run_on_the_bucket_gives_the_same_numbers_elsewhere(record, launch, storage) -> None:
    target = storage.location("elsewhere", "result")

    again = launch(record.images, output=target.uri)

    assert again.run_id != record.run_id
    assert (again.images, again.counts) == (record.images, record.counts)
    assert again.uris["result"] == target.uri
    first = read_parquet(storage, record.uris["result"]).set_index("origin")
    second = read_parquet(storage, target.uri).set_index("origin")
    assert len(first) == len(second)
    for origin, row in first.iterrows():
        np.testing.assert_allclose(row["pca"], second.loc[origin, "pca"], rtol=1e-4, atol=1e-4)
