"""Features in the store to projections in the store, on the standalone cluster."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from toolkit import reduction
from toolkit.dataset import Dataset, matrix, vectors_column
from toolkit.pca import fit_pca
from toolkit.reduction import project, read_vectors

PARTS, ROWS, DIMENSIONS = 6, 10, 5


@pytest.fixture
def features(storage) -> Dataset:
    """Return a dataset of 6 parts of 10 vectors."""
    features = Dataset(storage, storage.location("test-reduction", "features"))
    rng = np.random.default_rng(0)
    for number in range(PARTS):
        vectors = rng.standard_normal((ROWS, DIMENSIONS), np.float32)
        names = [f"{number}-{row}" for row in range(ROWS)]
        columns = {"origin": names, "label": names, "features": vectors_column(vectors)}
        features.write(number, pa.table(columns))
    yield features
    features.clear()


@pytest.fixture
def pca(spark, features):
    """Return the PCA of the vectors, all components."""
    return fit_pca(read_vectors(spark, features, dimensions=DIMENSIONS), components=1.0)


@pytest.fixture
def result(storage) -> Dataset:
    """Return an empty dataset."""
    result = Dataset(storage, storage.location("test-reduction", "result"))
    yield result
    result.clear()


def test_partitions_of_a_pca_are_even_though_parts_become_smaller(spark, storage, monkeypatch):
    features = Dataset(storage, storage.location("test-reduction", "shrinking"))
    for number, rows in enumerate((60, 50, 40, 30, 20, 10)):
        columns = {"features": vectors_column(np.ones((rows, DIMENSIONS), np.float32))}
        features.write(number, pa.table(columns))
    monkeypatch.setattr(reduction, "slots", lambda _: 2)
    vectors = read_vectors(spark, features, dimensions=DIMENSIONS)
    sizes = vectors.mapPartitions(lambda parts: [sum(map(len, parts))]).collect()
    assert sizes == [120, 90]  # the first halves and the last would be 150 and 60
    features.clear()


def test_every_row_is_projected_once_and_in_order(spark, pca, features, result):
    written = project(spark, pca, features, result=result)
    assert (written.rows, written.sample) == (PARTS * ROWS, [])
    back, source = (pa.concat_tables(each.tables()) for each in (result, features))
    assert back["origin"].to_pylist() == source["origin"].to_pylist()
    expected = pca.transform(matrix(source["features"], dimensions=DIMENSIONS))
    found = matrix(back["pca"], dimensions=DIMENSIONS)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_sample_has_some_rows_of_every_file(spark, pca, features, result, monkeypatch):
    monkeypatch.setattr(reduction, "_RESULTS_PER_SLOT", 1)
    monkeypatch.setattr(reduction, "slots", lambda _: 1)
    monkeypatch.setattr(reduction, "_PARTS_PER_RESULT", 2)
    written = project(spark, pca, features, result=result, sample=6)
    assert [label for label, _, _ in written.sample] == ["0-0", "0-1", "2-0", "2-1", "4-0", "4-1"]
    first = next(result.tables())["pca"][0].as_py()
    assert written.sample[0] == ("0-0", *first[:2])


def test_files_of_the_result_are_bounded_by_bytes(spark, pca, features, result, monkeypatch):
    monkeypatch.setattr(reduction, "_RESULTS_PER_SLOT", 1)
    monkeypatch.setattr(reduction, "slots", lambda _: 1)
    project(spark, pca, features, result=result)
    assert len(result.files()) == 1
    part = max(file.size for file in features.files())  # all components are kept
    monkeypatch.setattr(reduction, "_RESULT_BYTES", 3 * part)
    project(spark, pca, features, result=result)
    assert [each.num_rows for each in result.tables()] == [3 * ROWS, 3 * ROWS]
    monkeypatch.setattr(reduction, "_RESULT_BYTES", part // 2)
    project(spark, pca, features, result=result)
    assert len(result.files()) == PARTS
