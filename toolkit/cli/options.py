"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["JSON", "PROFILE"]

PROFILE = Annotated[
    str | None, typer.Option("--profile", "-p", help="Where to work: a profile of toolkit.toml.")
]
JSON = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
