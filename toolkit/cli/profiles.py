"""``toolkit profile``: where runs happen."""

from __future__ import annotations

import re
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from toolkit.cli import output
from toolkit.cli.options import ALLOW_CROSS_REGION, JSON
from toolkit.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from toolkit.cloud.aws.account import Identity
    from toolkit.cloud.aws.instance_profile import ExistingProfile
    from toolkit.cloud.aws.policy import Policy
    from toolkit.profiles import CredentialSource, Profile, ProfileDraft

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
    output.say(f"Next: {output.command_name()} profile check {draft.name}")


@app.command()
def check(
    name: Annotated[str, typer.Argument(help="Of the profile.")] = "aws",
    allow_cross_region: ALLOW_CROSS_REGION = False,
    as_json: JSON = False,
) -> None:
    """Look whether a promotion could begin, and what to mend; exit code 2 if it could not.

    Credentials, bucket, rights, instance type, quota, image, network: all
    problems at once, each with its remedy. Nothing is created but one small
    object in the bucket, which is removed at once.
    """
    from toolkit.cloud.preflight import COLUMNS, preflight, rows
    from toolkit.profiles import trace_profile

    profile, origins = trace_profile(name)
    report = preflight(profile, allow_cross_region=allow_cross_region)
    if as_json:
        problems = [asdict(problem) for problem in report.problems]
        output.print_json(asdict(report) | {"problems": problems})
    else:
        output.print_table(COLUMNS, rows(report))
    if report.problems:
        if origins["s3.bucket"].kind == "default":
            output.say(
                f"No bucket of yours is named so far: {output.command_name()} profile init {name}"
            )
        count = len(report.problems)
        output.say(f"{count} problem{'s' if count > 1 else ''}: `toolkit promote` would not begin.")
        raise typer.Exit(2)
    output.say(f"Next: {output.command_name()} promote --plan")


@app.command()
def policy(
    name: Annotated[str, typer.Argument(help="Of the profile.")] = "aws",
    node: Annotated[
        bool, typer.Option("--node", help="What the instances may, instead of whoever promotes.")
    ] = False,
    images: Annotated[
        str | None, typer.Option(help="URI of images outside images/ of the profile's bucket.")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="URI of weights outside models/ of the profile's bucket.")
    ] = None,
    destination: Annotated[
        str | None, typer.Option("--output", help="URI for `toolkit promote --output`.")
    ] = None,
    account: Annotated[
        str | None,
        typer.Option(help="Number of the AWS account. Default: asked for with your credentials."),
    ] = None,
    part: Annotated[
        int | None, typer.Option(min=1, help="Which document, where IAM's limit makes it several.")
    ] = None,
) -> None:
    """Print the IAM policy of whoever promotes, or the instances': what is needed, and no more.

    It is JSON, as AWS takes it. Without credentials it is printed, too,
    for an administrator to use.
    """
    from toolkit.cli.cloud import aws_profile
    from toolkit.cloud.aws.policy import node_policy, person_policy
    from toolkit.storage import Location

    profile = aws_profile(name)
    identity = _identity(profile.aws_region, account)
    region, bucket = profile.aws_region, profile.s3.bucket
    reads = [Location.parse(uri) for uri in (images, weights) if uri]
    result = Location.parse(destination) if destination else None
    if node:
        rights = node_policy(
            identity,
            region=region,
            bucket=bucket,
            reads=reads,
            output=result,
        )
        _print_policy((rights,), part)
        output.say(_about_node_policy())
        return
    existing = _existing(identity, profile)
    rights = person_policy(
        identity, region=region, bucket=bucket, reads=reads, output=result, existing=existing
    )
    _print_policy(rights.split(), part)
    output.say(_about_person_policy(name, makes_roles=existing is None))


def _identity(region: str, account: str | None) -> Identity:
    """Return whose policy it is: of the account that is named, or of the credentials."""
    from botocore.session import Session

    from toolkit.cloud.aws.account import (
        AwsAccount,
        CredentialsError,
        ExpiredError,
        Identity,
        UnreachableError,
    )

    if account and not re.fullmatch("[0-9]{12}", account):
        raise RequestError(
            f"--account: {account!r} is not the number of an AWS account.",
            remedy="It has 12 digits; the AWS console shows it at the top right.",
        )
    if account is None:
        try:
            return AwsAccount(region).identity()
        except (CredentialsError, ExpiredError, UnreachableError) as exc:
            output.say(
                f"{exc.message} So the account in the policy is `*`: in an account's own policy "
                "that is this account, and whatever others share with it. --account 123456789012 "
                "names yours."
            )
    partition = Session().get_partition_for_region(region)
    return Identity(account or "*", f"arn:{partition}:iam::{account or '*'}:root")


def _existing(identity: Identity, profile: Profile) -> ExistingProfile | None:
    """Return the instance profile that the settings name, as AWS tells or as the console names."""
    from toolkit.cloud.aws.account import AwsAccount, AwsError
    from toolkit.cloud.aws.instance_profile import ExistingProfile, find_instance_profile

    name = profile.aws.instance_profile
    if name is None:
        return None
    try:
        return find_instance_profile(AwsAccount(profile.aws_region), name)
    except (AwsError, RequestError) as exc:
        why = exc.message
    partition = identity.arn.split(":")[1]
    owner = f"arn:{partition}:iam::{identity.account}"
    guess = ExistingProfile(f"{owner}:instance-profile/{name}", f"{owner}:role/{name}")
    output.say(f"{why} Its role is taken to have the same name: put the right ARN in its place.")
    return guess


def _print_policy(documents: Sequence[Policy], part: int | None) -> None:
    """Print the one document, or the one that is asked for."""
    from toolkit.cloud.aws.policy import LONGEST_MANAGED

    count = len(documents)
    if part is None and count > 1:
        parts = ", ".join(f"--part {number}" for number in range(1, count + 1))
        raise RequestError(
            f"IAM takes policies of {LONGEST_MANAGED:,} characters: this one makes {count}.",
            remedy=f"Print each: {parts}. All of them have to be attached.",
        )
    if part is not None and part > count:
        raise RequestError(f"There is no part {part}.", remedy=f"The last one is --part {count}.")
    output.print_text(documents[(part or 1) - 1].to_json(indent=2))


def _about_person_policy(name: str, *, makes_roles: bool) -> str:
    """Say what to do with the policy, and how far it reaches."""
    from toolkit.cloud.aws.names import IAM_PATH

    this = f"{output.command_name()} profile policy {name}"
    told = (
        f"Next: save it (`{this} > policy.json`), and let an administrator make it a policy\n"
        "  aws iam create-policy --policy-name fruits-toolkit "
        "--policy-document file://policy.json\n"
        "and attach that to the user or the permission set of whoever promotes."
    )
    if not makes_roles:
        return told
    return (
        f"{told}\n\nMind: whoever has it makes roles below {IAM_PATH} for the instances, and can "
        "write any right into such a role. Where that is too much, an administrator makes an "
        f"instance profile once (`{this} --node`) and names it in the setting "
        "aws.instance_profile; this policy, printed again, then makes no roles."
    )


def _about_node_policy() -> str:
    """Say how an administrator makes an instance profile of the policy."""
    from toolkit.cloud.aws.policy import NODE_TRUST

    name = "fruits-toolkit-node"
    return (
        "Next: save it as node.json, and let an administrator make an instance profile of it\n"
        f"  aws iam create-role --role-name {name} --assume-role-policy-document '{NODE_TRUST}'\n"
        f"  aws iam put-role-policy --role-name {name} --policy-name toolkit "
        "--policy-document file://node.json\n"
        f"  aws iam create-instance-profile --instance-profile-name {name}\n"
        f"  aws iam add-role-to-instance-profile --instance-profile-name {name} "
        f"--role-name {name}\n"
        f"and name it in the setting aws.instance_profile (TOOLKIT_AWS__INSTANCE_PROFILE={name})."
    )


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
