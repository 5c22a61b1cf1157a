"""Run record -> one HTML page that needs nothing beside it."""

from toolkit.report.page import render

__all__ = ["render"]
