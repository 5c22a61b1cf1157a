"""``toolkit profile``: where runs happen."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from toolkit.cli import output
from toolkit.cli.options import JSON
from toolkit.errors import RequestError

if TYPE_CHECKING:
    from toolkit.profiles import CredentialSource, ProfileDraft

__all__ = ["app"]

app = typer.Typer(help="Where runs happen: profiles.", no_args_is_help=True)


@dataclass(frozen=True, slots=True)
class _Question:
    """What a profile of AWS needs to know: the setting, its option, and how it is asked for."""

    setting: str
    option: str
    text: str


_QUESTIONS = (
    _Question("s3.bucket", "--bucket", "S3 bucket for images, models and runs"),
    _Question("s3.region", "--region", "AWS region of the bucket and the instances"),
    _Question("aws.instance_type", "--instance-type", "EC2 instance type"),
    _Question("aws.nodes", "--nodes", "Number of instances"),
    _Question("aws.spot", "--spot", "Spot instances: cheaper, can be taken away (yes, no)"),
)


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
    """Print the settings in force and where each comes from; secrets are not shown."""
    from toolkit.profiles import credential_source, trace_profile

    profile, origins = trace_profile(name)
    credentials = credential_source() if profile.s3.is_aws else None
    if as_json:
        settings = profile.model_dump(mode="json")
        settings["origins"] = {setting: asdict(origin) for setting, origin in origins.items()}
        settings["credentials"] = asdict(credentials) if credentials else None
        output.print_json(settings)
        return
    rows = [(each, _shown(profile.value(each)), str(origin)) for each, origin in origins.items()]
    if credentials:
        rows.append(("credentials", credentials.method or "none", credentials.where))
    output.print_table(("setting", "value", "from"), rows)


@app.command()
def init(
    name: Annotated[str, typer.Argument(help="Of the profile.")] = "aws",
    bucket: Annotated[str | None, typer.Option(help="S3 bucket, which exists.")] = None,
    region: Annotated[str | None, typer.Option(help="Of bucket and instances.")] = None,
    instance_type: Annotated[str | None, typer.Option(help="Such as c7i.2xlarge.")] = None,
    nodes: Annotated[int | None, typer.Option(help="Number of instances.")] = None,
    spot: Annotated[
        bool | None, typer.Option("--spot/--no-spot", help="Cheaper, can be taken away.")
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Do not ask: take defaults for what is not given.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite what the profile has in toolkit.toml.")
    ] = False,
) -> None:
    """Write a profile of Amazon S3 and EC2 to toolkit.toml; asks for what no option gives."""
    from toolkit.profiles import ProfileDraft, credential_source

    draft = ProfileDraft(name)
    asks = sys.stdin.isatty() and not yes
    settings = [question.setting for question in _QUESTIONS]
    given = dict(zip(settings, (bucket, region, instance_type, nodes, spot), strict=True))
    try:
        values = _answers(draft, given, asks=asks, yes=yes)
        changes = draft.changes(values)
        if not force:
            _protect(draft, changes, asks=asks)
    except typer.Abort:
        output.say(f"\n{draft.file} is as it was.")
        raise
    draft.write(values)
    done = "is written to" if changes else "is so already in"
    output.print_text(f"Profile {draft.name} {done} {draft.file}.")
    output.print_table(
        ("setting", "value"), [(setting, _shown(values[setting])) for setting in values]
    )
    for setting, variable in draft.overruled(values).items():
        output.say(f"{variable} of the environment wins over {setting} of the file.")
    output.say(_about_credentials(credential_source()))
    output.say(f"Next: {output.command_name()} profile show {draft.name}")


def _answers(
    draft: ProfileDraft, given: dict[str, Any], *, asks: bool, yes: bool
) -> dict[str, Any]:
    """Return the settings from options, then from answers or defaults, in the questions' order."""
    checked = {
        question.setting: _from_option(draft, question, given[question.setting])
        for question in _QUESTIONS
        if given[question.setting] is not None
    }
    missing = [question for question in _QUESTIONS if question.setting not in checked]
    if asks and missing:
        output.say(f"Profile {draft.name}, for {draft.file}. Enter takes what is in brackets.")
    if not asks:
        _refuse_missing(draft, missing, yes=yes)
    for question in missing:
        default = draft.default(question.setting)
        checked[question.setting] = _ask(draft, question, default) if asks else default
    return {question.setting: checked[question.setting] for question in _QUESTIONS}


def _from_option(draft: ProfileDraft, question: _Question, value: object) -> Any:
    try:
        return draft.checked(question.setting, value)
    except RequestError as exc:
        raise RequestError(exc.message, remedy=f"Give {question.option} another value.") from exc


def _refuse_missing(draft: ProfileDraft, missing: list[_Question], *, yes: bool) -> None:
    """Refuse to go on without an answer that nobody can be asked for."""
    defaults = {question.option: draft.default(question.setting) for question in missing}
    needed = [option for option, default in defaults.items() if default is None]
    suited = [
        f"{option} ({_shown(default)})"
        for option, default in defaults.items()
        if default is not None
    ]
    if needed or (suited and not yes):
        unanswered = needed if yes else [question.option for question in missing]
        raise RequestError(
            f"There is no answer for {', '.join(unanswered)}.",
            remedy=(f"Give {', '.join(needed)}. " if needed else "")
            + (f"--yes takes the defaults of {', '.join(suited)}." if suited else ""),
        )


def _ask(draft: ProfileDraft, question: _Question, default: object) -> Any:
    """Ask until the setting takes the answer."""

    def check(text: str) -> Any:
        try:
            return draft.checked(question.setting, text.strip())
        except RequestError as exc:
            raise typer.BadParameter(exc.message) from exc

    shown = {True: "yes", False: "no"}.get(default) if isinstance(default, bool) else default
    shown = None if shown is None else str(shown)
    return typer.prompt(question.text, default=shown, value_proc=check, err=True)


def _protect(draft: ProfileDraft, changes: dict[str, tuple[Any, Any]], *, asks: bool) -> None:
    """Ask before values of the file are overwritten; without a terminal, refuse."""
    replaced = "\n".join(
        f"  {setting}: {_shown(old)} -> {_shown(new)}"
        for setting, (old, new) in changes.items()
        if old is not None
    )
    if not replaced:
        return
    told = f"Profile {draft.name} of {draft.file} has other values:\n{replaced}"
    if not asks:
        raise RequestError(told, remedy="--force overwrites them.")
    output.say(told)
    typer.confirm("Overwrite them?", abort=True, err=True)


def _about_credentials(source: CredentialSource) -> str:
    """Say where credentials come from, since the file holds none."""
    told = "Credentials are not in the file: they come from the standard AWS chain"
    if source.method not in {None, "iam-role"}:
        return f"{told}, now from {source.where} ({source.method})."
    why = ", unless this is an EC2 instance with a role" if source.method else f": {source.where}"
    return (
        f"{told}. It finds none now{why}. Set them up with `aws configure sso` or `aws configure`, "
        "or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
    )


def _shown(value: object) -> str:
    """Return a value as toolkit.toml would spell it; of a secret, that it is set."""
    from pydantic import SecretStr

    if value is None:
        return ""
    if isinstance(value, SecretStr):
        return "set, not shown"
    return str(value).lower() if isinstance(value, bool) else str(value)
