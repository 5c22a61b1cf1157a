"""The default network, and a job for it."""

from tests.support.bundles import aws, job, model

__all__ = ["aws", "job", "model"]
