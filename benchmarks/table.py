"""Tables, for the terminal and as Markdown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table as RichTable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

__all__ = ["Table", "as_markdown", "print_tables"]


@dataclass(frozen=True)
class Table:
    """A table of text.

    Parameters
    ----------
    title
        What it is about.
    columns
        Their heads.
    rows
        Their cells, as many as there are columns.
    note
        What must be known to read it.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


def as_markdown(heading: str, lines: Sequence[str], tables: Sequence[Table]) -> str:
    """Write a document: a heading, a list, and the tables that have rows."""
    parts = [f"# {heading}", "\n".join(f"- {line}" for line in lines)]
    for table in tables:
        if table.rows:
            parts += [f"## {table.title}", *([table.note] if table.note else []), _grid(table)]
    return "\n\n".join(parts) + "\n"


def print_tables(
    console: Console, heading: str, *, lines: Sequence[str], tables: Sequence[Table]
) -> None:
    """Show the same on a terminal."""
    console.rule(heading)
    for line in lines:
        console.print(f"  {line}", highlight=False, markup=False)
    for table in tables:
        if not table.rows:
            continue
        shown = RichTable(title=table.title, title_justify="left", box=box.SIMPLE_HEAD)
        for column in table.columns:
            shown.add_column(column, overflow="fold")
        for row in table.rows:
            shown.add_row(*row)
        console.print(shown, markup=False)
        if table.note:
            console.print(f"  {table.note}", highlight=False, markup=False)


def _grid(table: Table) -> str:
    rows = [table.columns, ["---"] * len(table.columns), *table.rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows)
