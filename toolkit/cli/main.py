"""The console script: all commands, and exit codes for errors."""

from __future__ import annotations

import os
import sys
import traceback
from typing import Annotated

import typer

from toolkit.cli import cloud, images, profiles, promote, run, runs, stack, train
from toolkit.cli.output import print_error
from toolkit.errors import ToolkitError

__all__ = ["app", "main"]

app = typer.Typer(
    name="toolkit",
    help="Image features on Spark, local first: images on S3, a network, PCA, Parquet.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
stack.register(app)
run.register(app)
runs.register(app)
train.register(app)
promote.register(app)
cloud.register(app)
app.add_typer(profiles.app, name="profile")
app.add_typer(images.app, name="images")


def _print_version(value: bool) -> None:
    if value:
        import importlib.metadata

        typer.echo(importlib.metadata.version("fruits-toolkit"))
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[  # noqa: ARG001 -- handled by its callback
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print it."),
    ] = False,
) -> None:
    if debug:
        os.environ["TOOLKIT_DEBUG"] = "1"


def main() -> None:
    """Run the command line and exit: 0 done, 1 the job failed, 2 the request is wrong."""
    try:
        app()
    except ToolkitError as exc:
        _show_traceback()
        print_error(exc.message, exc.remedy)
        sys.exit(exc.exit_code)
    except Exception as exc:  # noqa: BLE001 -- the last resort: no traceback without --debug
        _show_traceback()
        print_error(
            f"{type(exc).__name__}: {exc}",
            "This is a defect of the toolkit. `toolkit --debug …` shows where.",
        )
        sys.exit(1)


def _show_traceback() -> None:
    if os.environ.get("TOOLKIT_DEBUG"):
        traceback.print_exc()
