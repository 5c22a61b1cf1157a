"""Columns of vectors, and matrices."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from toolkit.dataset import matrix, vectors_column
from toolkit.errors import JobError


@pytest.mark.parametrize(
    "lists", [[[1, 2], None], [[1, 2], [1, 2, 3]], [[1, 2, 3], [1, 2, 3]], [[1]]]
)
def test_lists_that_are_missing_or_of_another_length_are_no_matrix(lists: list) -> None:
    column = pa.chunked_array([pa.array(lists, pa.list_(pa.float32()))])
    with pytest.raises(JobError, match="do not have 2 numbers"):
        matrix(column, dimensions=2)


def test_lists_of_uneven_lengths_that_add_up_are_no_matrix() -> None:
    column = pa.chunked_array([pa.array([[1.0], [1.0, 2.0, 3.0]], pa.list_(pa.float32()))])
    with pytest.raises(JobError, match="do not have 2 numbers"):
        matrix(column, dimensions=2)


def test_no_vectors_are_a_matrix_of_no_rows() -> None:
    column = pa.chunked_array([vectors_column(np.empty((0, 2), np.float32))])
    assert matrix(column, dimensions=2).shape == (0, 2)
