"""A job, and a developer whose secrets must not be in it."""

from tests.support.bundles import aws, job
from tests.support.bundles import paper_model as model
from tests.support.developer import ann

__all__ = ["ann", "aws", "job", "model"]
