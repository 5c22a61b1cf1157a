"""A job and a bundle, and a developer whose secrets must not be in it."""

from tests.support.bundles import aws, bundle, checkout, job, made, model
from tests.support.developer import ann

__all__ = ["ann", "aws", "bundle", "checkout", "job", "made", "model"]
