"""``toolkit promote``: the run on EC2 and S3."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from toolkit.cli import output
from toolkit.cli.options import (
    ALLOW_CROSS_REGION,
    CLOUD_PROFILE,
    COMPONENTS,
    DESTINATION,
    ENGINE,
    INPUT_SIZE,
    JSON,
    LIMIT,
    MODEL,
    PRECISION,
    WEIGHTS,
)
from toolkit.cli.run import run_request
from toolkit.errors import JobError, RequestError

if TYPE_CHECKING:
    from toolkit.cloud.plan import Plan
    from toolkit.cloud.preflight import Preflight
    from toolkit.cloud.promotion import Ending, Here
    from toolkit.cloud.rehearsal import Rehearsal
    from toolkit.progress import Progress
    from toolkit.runs import RunRecord

__all__ = ["register"]

_LOCAL = "local"
_DETACHED = 130  # as a shell has it of Ctrl-C


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(promote)


def promote(
    images: Annotated[
        str | None,
        typer.Argument(
            help="A folder (mirrored to the bucket) or an s3:// URI. Default: the sample images."
        ),
    ] = None,
    profile: CLOUD_PROFILE = "aws",
    only_rehearse: Annotated[
        bool, typer.Option("--rehearse", help="Rehearse on this machine, and stop there.")
    ] = False,
    no_rehearse: Annotated[
        bool, typer.Option("--no-rehearse", help="No rehearsal, and no comparison with it.")
    ] = False,
    only_plan: Annotated[
        bool, typer.Option("--plan", help="Show the plan with its costs, and stop there.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before it costs.")] = False,
    spot: Annotated[
        bool | None,
        typer.Option("--spot/--on-demand", help="Spot instances: cheaper, may be taken away."),
    ] = None,
    nodes: Annotated[
        int | None, typer.Option(min=1, help="Instances: one Spark cluster of so many.")
    ] = None,
    instance_type: Annotated[
        str | None, typer.Option(help="EC2 instance type, such as c7i.2xlarge.")
    ] = None,
    max_hours: Annotated[
        float | None, typer.Option(min=0.1, help="A node goes off after so long, whatever runs.")
    ] = None,
    allow_cross_region: ALLOW_CROSS_REGION = False,
    follow: Annotated[
        str | None, typer.Option(metavar="ID", help="Come back to a promotion that goes on.")
    ] = None,
    resume: Annotated[
        str | None, typer.Option(metavar="ID", help="A new node for one that ended early.")
    ] = None,
    destination: DESTINATION = None,
    model: MODEL = "EfficientNetLite0",
    weights: WEIGHTS = "imagenet",
    components: COMPONENTS = "0.95",
    engine: ENGINE = "openvino",
    precision: PRECISION = "auto",
    input_size: INPUT_SIZE = None,
    limit: LIMIT = None,
    as_json: JSON = False,
) -> None:
    """Promote a run to EC2 and S3: rehearse, plan, upload, launch, follow, collect, tear down.

    Nothing costs anything before you have seen the plan and agreed. Ctrl-C
    while the node works leaves it at work: --follow ID comes back, `toolkit
    stop ID` ends it. Called again after an interruption, it goes on with the
    same promotion. In the end nothing is left in AWS but files in the bucket.
    """
    from toolkit.cli.cloud import aws_profile, naming
    from toolkit.cloud import promotion
    from toolkit.cloud.status import find_promotion
    from toolkit.storage import Storage

    comes_back = {"--follow": follow is not None, "--resume": resume is not None}
    anew = {
        "IMAGES": images is not None,
        "--rehearse": only_rehearse,
        "--no-rehearse": no_rehearse,
        "--plan": only_plan,
    }
    _refuse_together({"--rehearse": only_rehearse, "--no-rehearse": no_rehearse})
    _refuse_together({"--rehearse": only_rehearse, "--plan": only_plan})
    for name, is_given in anew.items():
        _refuse_together({name: is_given, **comes_back})
    given = {
        "spot": spot,
        "nodes": nodes,
        "instance_type": instance_type,
        "max_hours": max_hours,
    }
    settings = {name: value for name, value in given.items() if value is not None}
    place = aws_profile(profile, needs_bucket=not only_rehearse, options={"aws": settings})
    desk = _Desk(yes=yes, as_json=as_json, prints_rehearsal=only_rehearse)
    ending: Ending | None
    try:
        with naming(profile):
            if follow is not None:
                folder = find_promotion(Storage(place.s3), follow)
                ending = promotion.come_back(folder.promotion_id, place, desk=desk)
            elif resume is not None:
                folder = find_promotion(Storage(place.s3), resume)
                ending = promotion.resume(
                    folder.promotion_id,
                    place,
                    here=_here(rehearsing=False, progress=desk.progress),
                    desk=desk,
                    changes=settings,
                    allow_cross_region=allow_cross_region,
                )
            else:
                ending = promotion.promote(
                    run_request(
                        images,
                        model=model,
                        weights=weights,
                        components=components,
                        engine=engine,
                        precision=precision,
                        input_size=input_size,
                        limit=limit,
                        output=destination,
                    ),
                    place,
                    here=_here(rehearsing=not no_rehearse, progress=desk.progress),
                    desk=desk,
                    rehearsing=not no_rehearse,
                    last="rehearse" if only_rehearse else "plan" if only_plan else "tear down",
                    allow_cross_region=allow_cross_region,
                )
    except promotion.DetachedError as exc:
        _tell_how_to_come_back(exc.promotion_id, profile)
        raise typer.Exit(_DETACHED) from exc
    if ending is not None:
        with naming(profile):
            _print_ending(ending, profile, as_json=as_json)


def _refuse_together(options: dict[str, bool]) -> None:
    """Refuse options that say different things."""
    given = [name for name, is_given in options.items() if is_given]
    if len(given) > 1:
        raise RequestError(
            f"{' and '.join(given)} do not go together.", remedy=f"Give one: {', '.join(options)}."
        )


def _here(*, rehearsing: bool, progress: Progress) -> Here:
    """Look at the local stack, and start it if there is to be a rehearsal."""
    from toolkit.cli.place import open_place, stand_in, storage_of
    from toolkit.cloud.estimate import physical_cores
    from toolkit.cloud.promotion import Here
    from toolkit.profiles import load_profile
    from toolkit.storage import Storage

    profile = load_profile(_LOCAL)
    limits = (profile.spark.cores, profile.stack.cores)
    cores = min([physical_cores(), *(limit for limit in limits if limit)])
    if rehearsing:
        storage = Storage(open_place(_LOCAL, say=progress.say).profile.s3)
        return Here(storage, cores, stand_in(storage))
    try:
        return Here(storage_of(_LOCAL), cores)
    except RequestError:  # it is down, or this is a wheel
        return Here(None, cores)


class _Desk:
    """Shows what goes on, and asks."""

    def __init__(self, *, yes: bool, as_json: bool, prints_rehearsal: bool) -> None:
        from toolkit.cli.bars import make_progress

        self.progress: Progress = make_progress()
        self._yes = yes
        self._as_json = as_json
        self._prints_rehearsal = prints_rehearsal

    def log_line(self, line: str) -> None:
        self.progress.say(f"  | {line}")

    def rehearsed(self, rehearsal: Rehearsal) -> None:
        run = rehearsal.record
        if self._prints_rehearsal and self._as_json:
            output.print_json(json.loads(run.to_json()))
        elif not self._as_json:
            rows = [("run", run.run_id), *_counts(run)]
            output.print_table(("", ""), rows, title=f"Rehearsal: {run.status}")
            if self._prints_rehearsal:
                output.print_text(f"\nNext: {output.command_name()} promote --plan")

    def checked(self, report: Preflight) -> None:
        from toolkit.cloud import preflight

        if not self._as_json:
            output.print_table(preflight.COLUMNS, preflight.rows(report), title="Preflight")

    def planned(self, plan: Plan, *, asks: bool) -> bool:
        if self._as_json:
            if not asks:
                output.print_json(asdict(plan))
        else:
            _print_plan(plan)
        if not asks or self._yes:
            return asks
        if self._as_json or not sys.stdin.isatty():
            raise RequestError(
                "Nothing was started: nobody could be asked.",
                remedy="--yes starts it unasked; --plan shows what it would cost.",
            )
        agreed = typer.confirm("Start it?", err=True)
        if not agreed:
            output.say("Nothing was started.")
        return agreed


def _print_plan(plan: Plan) -> None:
    from toolkit.cloud import plan as plans

    output.print_text("")
    output.print_table(
        ("", ""), plans.created(plan), title=f"Promotion {plan.promotion} will have, until its end"
    )
    output.print_text("")
    output.print_table(plans.COLUMNS, plans.rows(plan), title="Time and costs")
    output.print_text("")
    for note in plans.notes(plan):
        output.print_text(f"- {note}")


def _tell_how_to_come_back(promotion_id: str, profile: str) -> None:
    from toolkit.cli.cloud import command

    output.say(
        f"\nPromotion {promotion_id} goes on without you. Come back with:\n"
        f"  {command('promote --follow', promotion_id, profile)}  # to its end\n"
        f"  {output.command_name()} runs -p {profile}  # the runs in the bucket\n"
        f"  {command('stop', promotion_id, profile)}  # end its work"
    )


def _print_ending(ending: Ending, profile: str, *, as_json: bool) -> None:
    """Print how a promotion has ended; its failure is an error."""
    status, run = ending.status, ending.record
    if as_json:
        output.print_json(
            {
                "promotion": ending.promotion_id,
                "status": asdict(status),
                "run": json.loads(run.to_json()) if run else None,
                "parity": asdict(ending.parity) | {"agree": ending.parity.agree}
                if ending.parity
                else None,
                "removed": [asdict(each) for each in ending.removed],
                "files": str(ending.files),
            }
        )
    else:
        output.print_text("")
        output.print_table(
            ("", ""),
            _summary(ending),
            title=f"Promotion {ending.promotion_id}: {status.phase}",
        )
        command = output.command_name()
        output.print_text("\nNext:")
        if run:
            output.print_text(f"  {command} report {run.run_id} -p {profile} --open")
        output.print_text(f"  {command} runs -p {profile}")
    if status.phase != "done":
        raise JobError(
            f"The promoted run has not come to its end ({status.phase}): {status.error or ''}",
            remedy=status.remedy
            or f"See its log with `toolkit promote --follow {ending.promotion_id}`.",
        )
    if not ending.is_good:
        raise JobError(
            "The promoted run does not agree with the rehearsal.",
            remedy="Both used the same bundle: compare the processors' precision, and see the "
            "table above.",
        )


def _summary(ending: Ending) -> list[tuple[str, object]]:
    rows: list[tuple[str, object]] = []
    if run := ending.record:
        rows += [("run", run.run_id), *_counts(run), ("result", run.uris.get("result", ""))]
    if compared := ending.parity:
        cosine = "" if compared.least_cosine is None else f", cosine {compared.least_cosine:.6f}"
        verdict = "agrees" if compared.agree else "does NOT agree"
        differ = f"{compared.labels_differ} labels differ"
        missing = f"{compared.only_a + compared.only_b} images in one of them only"
        told = f"{verdict}: {compared.shared} shared images{cosine} at least; {differ}, {missing}"
        rows.append(("with the rehearsal", told))
    else:
        rows.append(("with the rehearsal", "not compared"))
    removed = ", ".join(f"{each.kind} {each.name}" for each in ending.removed)
    rows += [("removed", removed or "nothing was left"), ("files", ending.files)]
    return rows


def _counts(run: RunRecord) -> list[tuple[str, object]]:
    counts = run.counts
    bad = f", {counts.quarantined} quarantined" if counts.quarantined else ""
    return [
        ("images", f"{counts.listed} listed, {counts.featurized} featurized{bad}"),
        ("model", f"{run.model}, {run.engine} {run.precision}"),
        ("components", f"{run.components} of {run.dimensions}"),
        ("images/s", run.images_per_second or ""),
    ]
