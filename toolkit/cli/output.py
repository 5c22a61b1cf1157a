"""What the commands print: results on stdout, progress and notes on stderr."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = [
    "command_name",
    "print_error",
    "print_json",
    "print_table",
    "print_text",
    "say",
]


def print_json(document: Any) -> None:
    """Print one JSON document on stdout."""
    typer.echo(json.dumps(document, indent=2, ensure_ascii=False, default=str))


def print_text(text: str) -> None:
    """Print a line of a result on stdout."""
    typer.echo(text)


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str = ""
) -> None:
    """Print a table on stdout; piped, it is as wide as its content."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title or None, title_justify="left", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    console = Console(width=None if sys.stdout.isatty() else 240, soft_wrap=False)
    console.print(table)


def say(text: str, seconds: float | None = None) -> None:
    """Say on stderr what is going on, and how long it took."""
    took = f" ({seconds:.1f} s)" if seconds is not None else ""
    typer.echo(f"{text}{took}", err=True)


def print_error(message: str, remedy: str) -> None:
    """Print what happened and what to do next on stderr."""
    typer.secho(f"Error: {message}", err=True, fg="red")
    if remedy:
        typer.echo(remedy, err=True)


def command_name() -> str:
    """Return how the user can call this program: by name, or by its path in the environment."""
    if shutil.which("toolkit"):
        return "toolkit"
    script = Path(sys.executable).with_name("toolkit")
    here = Path.cwd()
    path = script.relative_to(here) if script.is_relative_to(here) else script
    return shlex.quote(str(path))
