"""Files that Spark itself writes and reads, whose first ones cost it seconds."""

from __future__ import annotations

import json


def test_what_spark_writes_is_committed_by_the_magic_committer(spark, storage) -> None:
    target = storage.location("test-session", "written")
    spark.range(3).write.mode("overwrite").parquet(target.uri)
    assert json.loads(storage.read(target / "_SUCCESS"))["committer"] == "magic"
    assert spark.read.parquet(target.uri).count() == 3
