"""The store that a session reads from."""

from __future__ import annotations

from toolkit.sparkdl.hadoop import session_storage


def test_store_of_the_session_is_found(spark, storage) -> None:
    assert session_storage(spark) == storage
