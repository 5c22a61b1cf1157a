"""``toolkit runs``, ``report`` and ``compare``: look at runs."""

from __future__ import annotations

from typing import Annotated

import typer

from toolkit.cli import output
from toolkit.cli.options import JSON, PROFILE

__all__ = ["register"]

RUN = Annotated[
    str | None, typer.Argument(help="A run's id or the start of it. Default: the newest done.")
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(runs)
    app.command()(report)
    app.command()(compare)


def runs(profile: PROFILE = None, as_json: JSON = False) -> None:
    """List the runs in the bucket, newest first."""
    from dataclasses import asdict

    from toolkit.cli.place import storage_of
    from toolkit.runs import all_runs

    found = list(all_runs(storage_of(profile)))
    if as_json:
        output.print_json([asdict(record) for record in found])
        return
    if not found:
        output.say(f"No runs yet. Make one: {output.command_name()} run")
        return
    output.print_table(
        ("run", "status", "model", "weights", "images", "quarantined", "components", "images/s"),
        (
            (
                record.run_id,
                record.status,
                record.model,
                record.weights,
                record.counts.listed,
                record.counts.quarantined,
                record.components or "",
                record.images_per_second or "",
            )
            for record in found
        ),
    )


def report(
    run: RUN = None,
    profile: PROFILE = None,
    browse: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
) -> None:
    """Fetch the report of a run and print where it is."""
    import webbrowser

    from toolkit.cli.place import storage_of
    from toolkit.errors import RequestError
    from toolkit.folders import cache_folder
    from toolkit.runs import RunFolder, find_run

    storage = storage_of(profile)
    record = find_run(storage, run)
    if record.status != "done":
        raise RequestError(
            f"Run {record.run_id} is {record.status} and has no report: {record.error or ''}",
            remedy="A run that failed is continued by the same `toolkit run` as before.",
        )
    page = cache_folder() / "reports" / f"{record.run_id}.html"
    storage.download(RunFolder(storage, record.run_id).file("report.html"), page)
    output.print_text(str(page))
    if browse:
        webbrowser.open(page.as_uri())


def compare(
    run_a: Annotated[str, typer.Argument(help="A run's id or the start of it.")],
    run_b: Annotated[str, typer.Argument(help="The other run's.")],
    profile: PROFILE = None,
    as_json: JSON = False,
) -> None:
    """Say whether two runs agree, row by row; exit code 1 if they do not."""
    from dataclasses import asdict

    from toolkit.cli.place import storage_of
    from toolkit.compare import compare_runs
    from toolkit.runs import find_run

    storage = storage_of(profile)
    comparison = compare_runs(storage, find_run(storage, run_a), find_run(storage, run_b))
    facts = asdict(comparison) | {"agree": comparison.agree}
    if as_json:
        output.print_json(facts)
    else:
        output.print_table(("", ""), facts.items())
    if not comparison.agree:
        raise typer.Exit(1)
