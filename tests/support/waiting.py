"""Waits in tests for what happens elsewhere."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def eventually(look: Callable[[], object], *, within: float = 240) -> object:
    """Look until there is something to see, and return it; fail after so many seconds."""
    deadline = time.monotonic() + within
    while not (seen := look()):
        assert time.monotonic() < deadline, f"nothing to see within {within} s"
        time.sleep(0.1)
    return seen
