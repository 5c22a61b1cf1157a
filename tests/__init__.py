"""Tests, in folders named after the resource they need; see ``tests/README.md``."""

import pytest

pytest.register_assert_rewrite("tests.support")  # before anything imports it
