"""The same tables, on a terminal and as Markdown."""

import io

from rich.console import Console

from benchmarks.table import Table, as_markdown, print_tables

TABLES = [
    Table("Speed", ["who", "images/s"], [["ours", "30 (29 to 31)"], ["a|b", "[red]9"]], "A note."),
    Table("Nothing", ["who"], []),
]


def test_markdown_has_the_lines_and_the_tables_that_have_rows():
    assert as_markdown("Benchmarks", ["8086, 1 core", "commit abc"], TABLES) == (
        "# Benchmarks\n\n"
        "- 8086, 1 core\n- commit abc\n\n"
        "## Speed\n\n"
        "A note.\n\n"
        "| who | images/s |\n| --- | --- |\n| ours | 30 (29 to 31) |\n| a/b | [red]9 |\n"
    )


def test_the_terminal_shows_every_cell_as_it_is():
    console = Console(file=io.StringIO(), width=80)
    print_tables(console, "Benchmarks", lines=["8086, 1 core"], tables=TABLES)
    shown = console.file.getvalue()
    for text in (
        "Benchmarks",
        "8086, 1 core",
        "Speed",
        "30 (29 to 31)",
        "a|b",
        "[red]9",
        "A note.",
    ):
        assert text in shown
    assert "Nothing" not in shown
