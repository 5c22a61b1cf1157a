"""The account, a job and a bundle."""

from tests.support.bundles import account, aws, bundle, checkout, direct, front, job, made, model

__all__ = ["account", "aws", "bundle", "checkout", "direct", "front", "job", "made", "model"]
