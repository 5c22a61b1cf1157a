"""Tests, in folders named after the resource they need; see ``tests/README.md``."""
