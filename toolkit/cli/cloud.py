"""``toolkit stop`` and ``sweep``: end a promotion, and remove what promotions have left in AWS."""

from __future__ import annotations

import re
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from toolkit.cli import output
from toolkit.cli.options import CLOUD_PROFILE, JSON
from toolkit.errors import JobError, RequestError, ToolkitError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from toolkit.cloud.aws.account import AwsAccount
    from toolkit.cloud.sweep import Found
    from toolkit.profiles import Profile

__all__ = ["aws_profile", "command", "naming", "register"]

_ABOUT_PROMOTION = re.compile(r"(?<=`)toolkit (promote --(follow|resume)|stop|sweep) [\w-]+(?=`)")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(stop)
    app.command()(sweep)


def stop(
    promotion: Annotated[str, typer.Argument(help="A promotion's id or the start of it.")],
    profile: CLOUD_PROFILE = "aws",
) -> None:
    """Ask a promotion's node to end; what it has done stays, and can be resumed."""
    from toolkit.cloud.status import find_promotion
    from toolkit.storage import Storage

    folder = find_promotion(Storage(aws_profile(profile).s3), promotion)
    status = folder.status()
    if status is not None and status.is_final:
        output.print_text(f"Promotion {folder.promotion_id} is over already: {status.phase}.")
    else:
        folder.ask_to_stop()
        output.print_text(f"Promotion {folder.promotion_id} is asked to stop.")
        when = (
            f"within seconds if it still works; it did at {status.heartbeat}"
            if status
            else "as soon as it has booted: it has said nothing so far"
        )
        output.say(f"Its node ends {when}. What is done stays in the bucket.")
    output.say(
        "\nNext:\n"
        f"  {command('promote --resume', folder.promotion_id, profile)}  # go on from there\n"
        f"  {command('sweep', folder.promotion_id, profile)}  # remove all it has in AWS at once"
    )


def sweep(
    promotion: Annotated[
        str | None, typer.Argument(help="A promotion's id or the start of it. Default: all.")
    ] = None,
    profile: CLOUD_PROFILE = "aws",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: JSON = False,
) -> None:
    """Remove what promotions have left in AWS: instances, disks, groups, roles, secrets.

    What carries the tag of a promotion in the profile's region is listed,
    and removed after asking; also of promotions that are still at work.
    The bucket stays as it is: its images, runs, logs and records are of use.
    """
    from dataclasses import asdict

    from toolkit.cloud.aws.account import AwsAccount
    from toolkit.cloud.sweep import find

    account = AwsAccount(aws_profile(profile, needs_bucket=False).aws_region)
    found = _fitting(find(account), promotion)
    if found and not yes:
        _ask(found, account.region)
    promotions = sorted({each.promotion for each in found})
    if promotion and yes:  # what EC2 shows only a moment later goes, too
        promotions = promotions or [promotion]
    removed, failures = _remove(account, promotions)
    if as_json:
        output.print_json({"region": account.region, "removed": [asdict(each) for each in removed]})
    elif removed:
        output.print_table(
            ("promotion", "removed", ""),
            [(each.promotion, each.kind, each.name) for each in removed],
        )
    if failures:
        raise JobError(
            "\n".join(dict.fromkeys(each.message for each in failures)),
            remedy="\n".join(dict.fromkeys(each.remedy for each in failures)),
        )
    if not as_json:
        whose = ", ".join(promotions) or promotion or "any promotion"
        output.print_text(f"Nothing of {whose} is left in {account.region}.")


def aws_profile(
    name: str, *, needs_bucket: bool = True, options: dict[str, dict[str, Any]] | None = None
) -> Profile:
    """Load a profile of AWS.

    Parameters
    ----------
    name
        Of the profile.
    needs_bucket
        Whether its bucket will be used, so that it has to be the user's own.
    options
        What the command line sets, by section.

    Raises
    ------
    RequestError
        There is no such profile; its objects are elsewhere; or it names no bucket: names belong to
        one account in the world, and the built-in one is not the user's.
    """
    from toolkit.profiles import trace_profile

    profile, origins = trace_profile(name, options=options)
    if not profile.s3.is_aws:
        raise RequestError(
            f"Profile {name!r} keeps its objects at {profile.s3.endpoint!r}, not in AWS.",
            remedy="Take a profile with s3.endpoint = 'aws', such as `--profile aws`.",
        )
    if needs_bucket and origins["s3.bucket"].kind == "default":
        raise RequestError(
            f"Profile {name!r} names no bucket of yours.",
            remedy=f"Name one: `{output.command_name()} profile init {name}`, or the variable "
            "TOOLKIT_S3__BUCKET.",
        )
    return profile


@contextmanager
def naming(profile: str) -> Iterator[None]:
    """Let the commands that an error names work as they stand: with the profile."""
    try:
        yield
    except ToolkitError as exc:
        if profile != "aws":
            exc.message, exc.remedy = (
                _ABOUT_PROMOTION.sub(rf"\g<0> -p {profile}", text)
                for text in (exc.message, exc.remedy)
            )
        raise


def command(words: str, promotion: str, profile: str) -> str:
    """Return a command about a promotion as the user can call it."""
    of_profile = "" if profile == "aws" else f" -p {profile}"
    return f"{output.command_name()} {words} {promotion}{of_profile}"


def _fitting(found: list[Found], promotion: str | None) -> list[Found]:
    """Return what belongs to the promotion that is meant; default: everything."""
    if promotion is None:
        return found
    ids = {each.promotion for each in found if each.promotion.startswith(promotion)}
    if len(ids) > 1 and promotion not in ids:
        raise RequestError(
            f"{promotion!r} fits several promotions: {', '.join(sorted(ids))}.",
            remedy="Write more of the id.",
        )
    meant = promotion if promotion in ids else next(iter(ids), None)
    return [each for each in found if each.promotion == meant]


def _ask(found: list[Found], region: str) -> None:
    """Show what would be removed, and ask; refuse where nobody can be asked."""
    told = "\n".join(_told(found, region))
    if not sys.stdin.isatty():
        raise RequestError(
            f"Nothing was removed. There is:\n{told}",
            remedy="--yes removes it without asking.",
        )
    output.say(told)
    try:
        typer.confirm("Remove all of this?", abort=True, err=True)
    except typer.Abort:
        output.say("\nNothing was removed.")
        raise


def _told(found: Iterable[Found], region: str) -> list[str]:
    """Return what there is, by promotion."""
    from toolkit.cloud.launch import AT_WORK

    by_promotion: dict[str, list[Found]] = {}
    for each in found:
        by_promotion.setdefault(each.promotion, []).append(each)
    lines = []
    for promotion, things in sorted(by_promotion.items()):
        is_at_work = any(each.kind == "instance" and each.state in AT_WORK for each in things)
        owners = ", ".join(sorted({each.owner for each in things if each.owner})) or "nobody known"
        state = " still at work" if is_at_work else ""
        lines.append(f"Promotion {promotion} of {owners}, in {region}:{state}")
        lines += [f"  {each}" for each in things]
    return lines


def _remove(account: AwsAccount, promotions: list[str]) -> tuple[list[Found], list[JobError]]:
    """Sweep each promotion; return what was removed, and why something is left."""
    from toolkit.cloud.aws.account import ExpiredError, UnreachableError
    from toolkit.cloud.sweep import sweep as remove_all

    removed: list[Found] = []
    failures: list[JobError] = []
    for promotion in promotions:
        try:
            removed += remove_all(account, promotion, say=output.say)
        except JobError as exc:
            failures.append(exc)
            if isinstance(exc, (ExpiredError, UnreachableError)):
                break  # the others would only say the same
    return removed, failures
