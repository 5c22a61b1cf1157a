"""The account that tests of launch, sweep and policy work in, and the server in front of it."""

from __future__ import annotations

import pytest
from in_front import leading_through, opened


@pytest.fixture
def account(moto):
    return moto.account()


@pytest.fixture
def direct(moto):
    """Return the account past the server in front of it, for whatever somebody else may do."""
    return opened(moto.account())


@pytest.fixture
def front(moto, direct):
    with leading_through(moto) as server:
        yield server
