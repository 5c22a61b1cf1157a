"""What is said of an error in a Spark job."""

from __future__ import annotations

import pytest

from toolkit.session import _cause


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("Traceback\n  x\nValueError: bad\n\n\tat org.apache.Foo", "ValueError: bad"),
        (
            "Cannot call methods on a stopped SparkContext.\nmore",
            "Cannot call methods on a stopped SparkContext.",
        ),
    ],
)
def test_cause_is_what_python_raised_or_the_first_line(text: str, cause: str) -> None:
    assert _cause(text) == cause
