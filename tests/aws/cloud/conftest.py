"""The account, directly and through a server in front of it."""

from tests.support.bundles import account, direct, front
from tests.support.bundles import paper_model as model

__all__ = ["account", "direct", "front", "model"]
