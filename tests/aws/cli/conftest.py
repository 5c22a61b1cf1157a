"""The account of the command line."""

from tests.support.cli_account import aws, bucket

__all__ = ["aws", "bucket"]
