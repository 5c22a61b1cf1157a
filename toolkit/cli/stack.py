"""``toolkit up``, ``down``, ``status``, ``logs`` and ``doctor``: the local stack."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from toolkit.cli import output
from toolkit.cli.options import JSON, PROFILE

if TYPE_CHECKING:
    from localstack import StackSettings

__all__ = ["register"]

PORT = Annotated[int | None, typer.Option(min=0, max=65535, help="0 takes a free one.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (up, down, status, logs, doctor):
        app.command()(command)


def up(
    profile: PROFILE = None,
    minio_port: PORT = None,
    minio_console_port: PORT = None,
    spark_port: PORT = None,
    spark_ui_port: PORT = None,
    worker_ui_port: PORT = None,
    cores: Annotated[int | None, typer.Option(min=1, help="Of the Spark worker.")] = None,
    as_json: JSON = False,
) -> None:
    """Start MinIO and Spark on this machine and wait until they are healthy."""
    from toolkit.cli.place import local_stack, stack_errors

    settings = _settings(
        profile,
        minio_port=minio_port,
        minio_console_port=minio_console_port,
        spark_port=spark_port,
        spark_ui_port=spark_ui_port,
        worker_ui_port=worker_ui_port,
        cores=cores,
    )
    with stack_errors():
        local_stack().up(settings, say=output.say)
    _print_status(settings, as_json=as_json)


def down(
    profile: PROFILE = None,
    purge: Annotated[
        bool, typer.Option("--purge", help="Delete the stack's data too: images, runs, models.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: JSON = False,
) -> None:
    """Stop what `up` started. Data is kept, unless --purge."""
    from toolkit.cli.place import local_stack, stack_errors

    settings = _settings(profile)
    if purge and not yes:
        typer.confirm(f"Delete all data in {settings.home}?", abort=True, err=True)
    with stack_errors():
        stopped = local_stack().down(settings)
        if purge:
            local_stack().purge(settings)
    if as_json:
        output.print_json({"stopped": stopped, "purged": purge, "home": str(settings.home)})
        return
    output.print_text(f"Stopped: {', '.join(stopped) or 'nothing was running'}.")
    output.print_text(f"{'Deleted' if purge else 'Data is kept in'} {settings.home}.")


def status(profile: PROFILE = None, as_json: JSON = False) -> None:
    """Show what runs, and where its pages and logs are; exit code 1 if something is down."""
    if not _print_status(_settings(profile), as_json=as_json):
        raise typer.Exit(1)


def logs(
    services: Annotated[
        list[str] | None, typer.Argument(help="minio, master, worker. Default: all.")
    ] = None,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="How many.")] = 50,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on as lines come; of one service.")
    ] = False,
    profile: PROFILE = None,
    as_json: JSON = False,
) -> None:
    """Print the newest lines of the services' logs."""
    from toolkit.cli.place import local_stack, stack_errors
    from toolkit.errors import RequestError

    stack, settings = local_stack(), _settings(profile)
    names = services or list(stack.SERVICES)
    with stack_errors():
        if follow:
            if len(names) != 1:
                raise RequestError(
                    "--follow takes one service.", remedy="`toolkit logs worker --follow`"
                )
            for line in stack.follow(settings, names[0], lines=lines):
                output.print_text(line)
        newest = {name: stack.logs(settings, name, lines=lines) for name in names}
    if as_json:
        output.print_json(newest)
        return
    for name, found in newest.items():
        output.print_text(f"==> {name}: {settings.log(name)} <==")
        for line in found:
            output.print_text(line)


def doctor(profile: PROFILE = None, as_json: JSON = False) -> None:
    """Check this machine: what is missing, and the command that mends it."""
    from dataclasses import asdict

    from toolkit.cli.place import local_stack

    found = local_stack().checks(_settings(profile))
    if as_json:
        output.print_json([asdict(check) for check in found])
    else:
        marks = {True: "ok", False: "MISSING", "warn": "warning"}
        output.print_table(
            ("", "check", "found", "remedy"),
            ((marks[check.ok], check.name, check.detail, check.remedy) for check in found),
        )
    if any(check.ok is False for check in found):
        raise typer.Exit(1)


def _settings(profile: str | None, **options: int | None) -> StackSettings:
    from toolkit.cli.place import stack_settings
    from toolkit.profiles import load_profile

    given = {name: value for name, value in options.items() if value is not None}
    return stack_settings(load_profile(profile, options={"stack": given}))


def _print_status(settings: StackSettings, *, as_json: bool) -> bool:
    """Print how the services are; return whether all of them run."""
    from toolkit.cli.place import local_stack

    found = local_stack().status(settings)
    if as_json:
        output.print_json(found.as_dict())
    else:
        output.print_table(
            ("service", "state", "pid", "address", "page", "log"),
            (
                (each.name, each.state, each.pid or "", each.url or "", each.page or "", each.log)
                for each in found.services
            ),
        )
        memory = f"{found.memory_mib} MiB"
        output.print_text(f"Spark: {found.workers_alive} worker, {found.cores} cores, {memory}")
    return bool(found.running)
