"""``toolkit profile``: where runs happen."""

from __future__ import annotations

from typing import Annotated

import typer

from toolkit.cli import output
from toolkit.cli.options import JSON

__all__ = ["app"]

app = typer.Typer(help="Where runs happen: profiles.", no_args_is_help=True)


@app.command("list")
def list_profiles(as_json: JSON = False) -> None:
    """List the profiles, built in or from toolkit.toml."""
    from toolkit.profiles import profile_names

    names = profile_names()
    if as_json:
        output.print_json(names)
    else:
        for name in names:
            output.print_text(name)


@app.command()
def show(
    name: Annotated[str | None, typer.Argument(help="Default: the one in force.")] = None,
    as_json: JSON = False,
) -> None:
    """Print the settings of a profile as they are in force; secrets are not shown."""
    from toolkit.profiles import load_profile

    settings = load_profile(name).model_dump(mode="json")
    if as_json:
        output.print_json(settings)
        return
    sections = {key: value for key, value in settings.items() if isinstance(value, dict)}
    rows = [("name", settings["name"])]
    rows += [
        (f"{section}.{key}", "" if value is None else value)
        for section, values in sections.items()
        for key, value in values.items()
    ]
    output.print_table(("setting", "value"), rows)
