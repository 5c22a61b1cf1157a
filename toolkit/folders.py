"""Where the toolkit keeps files on this machine: nowhere but in these two folders."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

__all__ = ["cache_folder", "state_folder"]

_APPLICATION = "fruits-toolkit"


def cache_folder() -> Path:
    """Return the folder of what can be made again: ``TOOLKIT_CACHE``, or the user's cache."""
    return _given("TOOLKIT_CACHE") or platformdirs.user_cache_path(_APPLICATION)


def state_folder() -> Path:
    """Return the folder of logs and state: ``TOOLKIT_HOME``, or the user's state folder."""
    return _given("TOOLKIT_HOME") or platformdirs.user_state_path(_APPLICATION)


def _given(variable: str) -> Path | None:
    value = os.environ.get(variable)
    return Path(value).expanduser().absolute() if value else None
