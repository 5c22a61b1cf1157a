"""A process that has a session of its own gets none for notebooks."""

from __future__ import annotations

import pytest

from toolkit.errors import RequestError
from toolkit.notebook import import_images, start_spark, stop_spark


def test_the_session_of_somebody_else_is_left_alone(spark) -> None:
    with pytest.raises(RequestError, match="did not start"):
        start_spark()
    stop_spark()
    assert spark.range(3).count() == 3


def test_images_are_imported_into_the_store_of_a_session(spark) -> None:
    with pytest.raises(RequestError, match=r"No session runs\.\nCall .*start_spark"):
        import_images()
