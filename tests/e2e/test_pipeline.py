"""The same run again, and its files read by Spark."""

from __future__ import annotations

import numpy as np

from tests.support.runs import launch, read_parquet

__all__ = ["launch"]


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
