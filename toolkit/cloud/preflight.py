"""What must be right before a promotion costs anything: all of it looked at, all problems at once.

Nothing is created but one small object, which is removed at once. What can only be looked at when
something else is right (a bucket's rights: there has to be the bucket) is skipped until then.
"""

from __future__ import annotations

import re
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from toolkit.cloud.aws.account import (
    AccessDeniedError,
    AwsAccount,
    AwsError,
    CredentialsError,
    ExpiredError,
    aws_errors,
)
from toolkit.cloud.aws.instance_profile import find_instance_profile
from toolkit.cloud.aws.machine_image import ARCHITECTURE, find_machine_image
from toolkit.cloud.aws.network import Zone, find_subnets
from toolkit.cloud.aws.policy import Policy
from toolkit.cloud.aws.prices import Prices
from toolkit.cloud.bundle import PROMOTIONS
from toolkit.cloud.estimate import instance_types
from toolkit.cloud.launch import AT_WORK, LaunchRequest, instance_arguments
from toolkit.errors import RequestError, ToolkitError
from toolkit.runs import new_run_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from toolkit.cloud.aws.account import Identity
    from toolkit.cloud.aws.instance_profile import ExistingProfile
    from toolkit.cloud.aws.machine_image import MachineImage
    from toolkit.cloud.aws.network import Subnet
    from toolkit.cloud.aws.prices import Price
    from toolkit.cloud.estimate import InstanceType
    from toolkit.profiles import AwsSettings, Profile, S3Settings

__all__ = ["COLUMNS", "Check", "Facts", "Preflight", "Problem", "preflight", "rows"]

T = TypeVar("T")

COLUMNS = ("looked at", "", "found")
"""Titles of the columns of `rows`."""

# Always the same key: what a preflight that was killed has left, the next one removes.
_FOLDER = "toolkit/"
_PROBE = f"{PROMOTIONS}/preflight-probe"
_PROBE_CONTENT = b"Written by `toolkit promote` to see whether it may. Delete it if you find it.\n"

_REGION_HEADER = "x-amz-bucket-region"
# What GetBucketLocation says of the oldest regions:
# https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetBucketLocation.html
_OLD_REGIONS = {None: "us-east-1", "": "us-east-1", "EU": "eu-west-1"}

# "Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances" and "All Standard (…) Spot
# Instance Requests", both in vCPUs:
# https://docs.aws.amazon.com/ec2/latest/instancetypes/ec2-instance-quotas.html
_QUOTA_ON_DEMAND = "L-1216C47A"
_QUOTA_SPOT = "L-34B43A08"
# The families by the letters that their names begin with; Im4gn and Is4gen are of I.
_STANDARD = frozenset({"a", "c", "d", "h", "i", "im", "is", "m", "r", "t", "z"})
_QUOTA_ATTEMPTS = 2  # it is only worth a note

# What EC2 would complain of, too, if it were asked to start instances.
_NEEDED_TO_START = ("instance type", "machine image", "network", "instance profile")
_OF_A_GROUP = re.compile(r"on resource: \S+:security-group/")

# The others would only say the same of the credentials.
_LOCKED_OUT = (CredentialsError, ExpiredError)


@dataclass(frozen=True, slots=True)
class Problem:
    """What keeps the promotion from beginning, and what the user can do about it."""

    what: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    Attributes
    ----------
    title
        What it was.
    found
        What there is; empty if that can't be said.
    problems, notes
        What must change, and what is good to know.
    skipped
        Whether something else has to be right first.
    """

    title: str
    found: str = ""
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    skipped: bool = False


@dataclass(frozen=True, slots=True)
class Facts:
    """What a plan and a launch need to know of the account.

    Attributes
    ----------
    identity
        Who promotes.
    region
        Region of the instances.
    bucket, bucket_region
        The bucket, and where it is.
    instance_type
        Type of the nodes.
    image
        What they boot.
    zones
        Where they can be started, by name; at least one, and all in one VPC.
    existing
        The instance profile that the profile names; None: one is to be created.
    quota_left
        vCPUs of this kind that the account may still start; None: AWS does not tell.
    transfer
        Price of a GB from the bucket to the instances; None: they are in the same region, or it is
        not known.
    """

    identity: Identity
    region: str
    bucket: str
    bucket_region: str
    instance_type: InstanceType
    image: MachineImage
    zones: tuple[Zone, ...]
    existing: ExistingProfile | None = None
    quota_left: int | None = None
    transfer: Price | None = None


@dataclass(frozen=True, slots=True)
class Preflight:
    """The report.

    Attributes
    ----------
    checks
        All that was looked at, in order.
    facts
        There only if there is no problem.
    """

    checks: tuple[Check, ...]
    facts: Facts | None

    @property
    def problems(self) -> tuple[Problem, ...]:
        """All problems, each once."""
        return tuple(dict.fromkeys(each for check in self.checks for each in check.problems))

    def require(self) -> Facts:
        """Return the facts.

        Raises
        ------
        RequestError
            There are problems; its remedy lists all of them with theirs.
        """
        if self.facts is not None:
            return self.facts
        count = len(self.problems)
        raise RequestError(
            f"Nothing was started: {count} thing{'s' if count > 1 else ''} must be mended first.",
            remedy="\n".join(f"- {each.what}\n  {each.remedy}" for each in self.problems),
        )


def preflight(profile: Profile, *, allow_cross_region: bool = False) -> Preflight:
    """Look whether a promotion with this profile can begin.

    Parameters
    ----------
    profile
        Whose bucket, and whose instances.
    allow_cross_region
        Whether bucket and instances may be in different regions, between which AWS charges for
        each GB.

    Returns
    -------
    Preflight
        What was found. A problem is no exception here: see `Preflight.require`.
    """
    checks = _Checks()
    caller = checks.at("account", lambda: _caller(profile))
    if caller is None:
        return Preflight(tuple(checks.done), None)
    account, identity = caller
    bucket_region = checks.at("bucket", lambda: _bucket(account, profile))
    if bucket_region:
        checks.at(
            "rights in the bucket", lambda: _rights(account, profile.s3.bucket, bucket_region)
        )
    else:
        checks.skip("rights in the bucket")
    # Instances go where the bucket is, unless told otherwise: also if s3.region is wrong about it.
    region = profile.aws.region or bucket_region or profile.s3.region
    there = account if account.region == region else AwsAccount(region)
    transfer = quota_left = facts = None
    if bucket_region and bucket_region != region:
        transfer = checks.at(
            "regions", lambda: _regions(there, bucket_region, allowed=allow_cross_region)
        )
    offer = checks.at("instance type", lambda: _offer(there, profile.aws))
    if offer:
        quota_left = checks.at("quota", lambda: _quota(there, profile.aws, offer.instance_type))
    else:
        checks.skip("quota")
    image = checks.at("machine image", lambda: _image(there, profile.aws))
    zones = checks.at("network", lambda: _network(there, profile.aws, offer))
    existing = checks.at("instance profile", lambda: _instance_profile(there, profile.aws))
    if offer and image and zones and checks.are_right(*_NEEDED_TO_START):
        request = _request(identity, profile.aws, image=image, zones=zones, existing=existing)
        checks.at("right to start", lambda: _right_to_start(there, request))
    else:
        checks.skip("right to start")
    if bucket_region and offer and image and zones and checks.are_right():
        facts = Facts(
            identity=identity,
            region=region,
            bucket=profile.s3.bucket,
            bucket_region=bucket_region,
            instance_type=offer.instance_type,
            image=image,
            zones=zones,
            existing=existing,
            quota_left=quota_left,
            transfer=transfer,
        )
    return Preflight(tuple(checks.done), facts)


def rows(report: Preflight) -> list[tuple[str, str, str]]:
    """Return the report as the rows of a table, to stand under `COLUMNS`.

    Problems and notes have rows of their own below what they belong to; a problem's remedy has the
    row after it.
    """
    return [
        (check.title if number == 0 else "", *line)
        for check in report.checks
        for number, line in enumerate(_lines(check))
    ]


def _lines(check: Check) -> list[tuple[str, str]]:
    if check.skipped:
        return [("skipped", "Something else has to be right first.")]
    lines = [("" if check.problems else "ok", check.found)] if check.found else []
    for problem in check.problems:
        lines += [("problem", problem.what), ("", problem.remedy)]
    return [*lines, *(("note", note) for note in check.notes)]


@dataclass(frozen=True, slots=True)
class _Seen(Generic[T]):
    """What a check has seen; without a value, what depends on it can't be looked at."""

    value: T | None
    found: str = ""
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass
class _Checks:
    """The checks so far. An error in one is its problem, and no reason not to do the others."""

    done: list[Check] = field(default_factory=list)
    locked_out: bool = False

    def are_right(self, *titles: str) -> bool:
        """Whether these, or all so far, were looked at and have no problem."""
        return not any(
            check.problems or check.skipped
            for check in self.done
            if not titles or check.title in titles
        )

    def at(self, title: str, look: Callable[[], _Seen[T]]) -> T | None:
        """Look at one thing."""
        if self.locked_out:
            self.skip(title)
            return None
        try:
            seen = look()
        except ToolkitError as exc:
            self.locked_out = isinstance(exc, _LOCKED_OUT)
            seen = _Seen(None, problems=(_problem(exc),))
        self.done.append(Check(title, seen.found, seen.problems, seen.notes))
        return seen.value

    def skip(self, title: str) -> None:
        """Put down that this one has to wait."""
        self.done.append(Check(title, skipped=True))


def _problem(exc: ToolkitError) -> Problem:
    return Problem(exc.message, exc.remedy or "See what AWS says of this error, and try again.")


@contextmanager
def _kept(problems: list[Problem]) -> Iterator[None]:
    """Keep an error as a problem, so that what comes after is looked at, too."""
    try:
        yield
    except _LOCKED_OUT:
        raise
    except ToolkitError as exc:
        problems.append(_problem(exc))


def _caller(profile: Profile) -> _Seen[tuple[AwsAccount, Identity]]:
    account = AwsAccount(profile.aws_region)
    identity = account.identity()
    return _Seen((account, identity), f"{identity.account}, {identity.arn}")


def _bucket(account: AwsAccount, profile: Profile) -> _Seen[str]:
    settings = profile.s3
    if not settings.is_aws:
        raise RequestError(
            f"Profile {profile.name!r} keeps its objects at {settings.endpoint!r}, where instances "
            "of EC2 can't reach them.",
            remedy="Take a profile with s3.endpoint = 'aws', such as `--profile aws`.",
        )
    region = _bucket_region(account, settings)
    found = f"{settings.bucket} in {region}"
    if region == settings.region:
        return _Seen(region, found)
    wrong = Problem(
        f"The bucket {settings.bucket} is in {region}, and the setting s3.region says "
        f"{settings.region}.",
        f"Set s3.region to {region} (TOOLKIT_S3__REGION={region}).",
    )
    return _Seen(region, found, (wrong,))


def _bucket_region(account: AwsAccount, settings: S3Settings) -> str:
    """Ask where the bucket is: from any region, and without a right to it."""
    s3 = account.client("s3", region=settings.region)
    try:
        with aws_errors(doing=f"look at the bucket {settings.bucket}"):
            answer = s3.head_bucket(Bucket=settings.bucket)
    except AwsError as exc:
        if exc.code in {"404", "NoSuchBucket"}:
            raise RequestError(
                f"There is no bucket {settings.bucket}.",
                remedy=f"Create it: `aws s3 mb s3://{settings.bucket} --region {settings.region}`. "
                "Or name yours in the setting s3.bucket (TOOLKIT_S3__BUCKET).",
            ) from exc
        # Redirections tell the region, and refusals do, too. Who may list some prefixes only may
        # not look at the bucket, and can do all that a promotion does.
        answer = getattr(exc.__cause__, "response", {})
        if not _told_region(answer) and not isinstance(exc, AccessDeniedError):
            raise
    region = _told_region(answer)
    if region:
        return region
    # Amazon's S3 always tells it; other servers of S3 may not.
    with aws_errors(doing=f"ask where the bucket {settings.bucket} is"):
        location = s3.get_bucket_location(Bucket=settings.bucket).get("LocationConstraint")
    return _OLD_REGIONS.get(location) or str(location)


def _told_region(answer: dict[str, Any]) -> str:
    return str(answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get(_REGION_HEADER, ""))


def _rights(account: AwsAccount, bucket: str, region: str) -> _Seen[None]:
    """Try what a promotion does in the bucket."""
    s3 = account.client("s3", region=region)
    problems: list[Problem] = []
    folder = f"s3://{bucket}/{_FOLDER}"
    with _kept(problems), _trying(f"list {folder}", needs=f"s3:ListBucket on {bucket}"):
        s3.list_objects_v2(Bucket=bucket, Prefix=_FOLDER, MaxKeys=1)
    notes: list[str] = []
    with _kept(problems):
        if key := _probe(s3, bucket):
            notes.append(
                f"The bucket encrypts with the KMS key {key}. If that is not AWS's own, the role "
                "of the instances needs kms:Decrypt and kms:GenerateDataKey on it: see aws."
                "instance_profile."
            )
    found = "" if problems else f"to list, write, read and delete below {folder}"
    return _Seen(None, found, tuple(problems), tuple(notes))


def _probe(s3: Any, bucket: str) -> str | None:
    """Write, read and delete an object; return the KMS key that it was encrypted with, if any.

    Deleting comes first. S3 allows or denies it whether the object is there or not; and where it
    denies, nothing is written that would have to stay.
    """
    where = {"Bucket": bucket, "Key": _PROBE}
    uri, below = f"s3://{bucket}/{_PROBE}", f"{bucket}/{_FOLDER}*"
    untried = "(and s3:PutObject and s3:GetObject, not tried before)"
    with _trying(f"delete {uri}", needs=f"s3:DeleteObject {untried} on {below}"):
        s3.delete_object(**where)
    try:
        with _trying(f"write {uri}", needs=f"s3:PutObject on {below}"):
            written = s3.put_object(**where, Body=_PROBE_CONTENT)
        # Another preflight may just have removed it: then it could have been read.
        gone = s3.exceptions.NoSuchKey
        with _trying(f"read {uri}", needs=f"s3:GetObject on {below}"), suppress(gone):
            s3.get_object(**where)["Body"].close()
    finally:
        with _trying(f"delete {uri}", needs=f"s3:DeleteObject on {below}"):
            s3.delete_object(**where)
    key: str | None = written.get("SSEKMSKeyId")
    return key


@contextmanager
def _trying(doing: str, *, needs: str) -> Iterator[None]:
    """Name what has to be allowed where S3 denies: of a bucket, S3 does not always."""
    try:
        with aws_errors(doing=doing):
            yield
    except AccessDeniedError as exc:
        remedy = f"Have {needs} allowed by the policy of these credentials."
        raise RequestError(exc.message, remedy=remedy) from exc


def _regions(account: AwsAccount, bucket_region: str, *, allowed: bool) -> _Seen[Price]:
    price = Prices(account).transfer(bucket_region, account.region)
    costs = f"{price.usd:g} US dollars ({price.source})" if price else "money"
    found = f"bucket in {bucket_region}, instances in {account.region}"
    what = f"Between {bucket_region} and {account.region} each GB of images costs {costs}."
    if allowed:
        return _Seen(price, found, notes=(what,))
    remedy = (
        f"Let the instances run in {bucket_region}: leave out the setting aws.region "
        "(TOOLKIT_AWS__REGION). Or pay for the way: --allow-cross-region."
    )
    return _Seen(price, found, (Problem(what, remedy),))


@dataclass(frozen=True, slots=True)
class _Offer:
    """An instance type, and the zones that offer it."""

    instance_type: InstanceType
    zones: tuple[str, ...]


def _offer(account: AwsAccount, settings: AwsSettings) -> _Seen[_Offer]:
    name = settings.instance_type
    another = (
        "Name another in the setting aws.instance_type (TOOLKIT_AWS__INSTANCE_TYPE), such as "
        "c7i.2xlarge."
    )
    found = instance_types(account, [name]).get(name)
    if found is None:
        raise RequestError(f"{account.region} has no instance type {name}.", remedy=another)
    zones = _zones_offering(account, name)
    problems = []
    if found.architecture != ARCHITECTURE:
        what = f"{name} is of {found.architecture}; the locked packages are for {ARCHITECTURE}."
        problems.append(Problem(what, another))
    if not zones:
        problems.append(Problem(f"No zone of {account.region} offers {name}.", another))
    sizes = f"{found.vcpus} vCPUs, {found.memory_mib / 1024:g} GiB"
    return _Seen(
        _Offer(found, zones),
        f"{name}: {sizes}; in {', '.join(zones) or 'no zone'}",
        tuple(problems),
    )


def _zones_offering(account: AwsAccount, instance_type: str) -> tuple[str, ...]:
    with aws_errors(doing=f"ask which zones offer {instance_type}"):
        pages = account.client("ec2").get_paginator("describe_instance_type_offerings")
        asked = pages.paginate(
            LocationType="availability-zone",
            Filters=[{"Name": "instance-type", "Values": [instance_type]}],
        )
        offerings = [offering for page in asked for offering in page["InstanceTypeOfferings"]]
    return tuple(sorted(each["Location"] for each in offerings))


def _quota(account: AwsAccount, settings: AwsSettings, kind: InstanceType) -> _Seen[int]:
    """Compare what the account may run with what runs and what is asked for."""
    if not _is_standard(kind.name):
        return _Seen(None, notes=(f"{kind.name} has a quota of its own, not looked up here.",))
    code = _QUOTA_SPOT if settings.spot else _QUOTA_ON_DEMAND
    market = "spot" if settings.spot else "on-demand"
    try:
        with aws_errors(doing=f"look up the quota of {market} vCPUs"):
            quotas = account.client("service-quotas", attempts=_QUOTA_ATTEMPTS)
            answer = quotas.get_service_quota(ServiceCode="ec2", QuotaCode=code)
    except ExpiredError:
        raise
    except AwsError as exc:
        return _Seen(None, notes=(f"{exc.message} Beyond it, the launch fails at once.",))
    allowed = int(answer["Quota"]["Value"])
    running = _running_vcpus(account, spot=settings.spot)
    asked = settings.nodes * kind.vcpus
    found = f"{allowed} standard {market} vCPUs, {running} of them running; {asked} asked for"
    if running + asked <= allowed:
        return _Seen(allowed - running, found)
    too_few = Problem(
        f"{settings.nodes} x {kind.name} need {asked} vCPUs, and of {allowed} standard {market} "
        f"vCPUs that the account may run in {account.region}, {running} run.",
        "Take a smaller type (aws.instance_type) or fewer nodes (aws.nodes), or ask for more: "
        f"`aws service-quotas request-service-quota-increase --region {account.region} "
        f"--service-code ec2 --quota-code {code} --desired-value {running + asked}`.",
    )
    return _Seen(allowed - running, found, (too_few,))


def _is_standard(instance_type: str) -> bool:
    letters = re.match("[a-z]+", instance_type)
    return letters is not None and letters[0] in _STANDARD


def _running_vcpus(account: AwsAccount, *, spot: bool) -> int:
    """Count the vCPUs of standard types that run, either on spot or on demand."""
    with aws_errors(doing="see which instances run"):
        pages = account.client("ec2").get_paginator("describe_instances")
        asked = pages.paginate(Filters=[{"Name": "instance-state-name", "Values": sorted(AT_WORK)}])
        reservations = [each for page in asked for each in page["Reservations"]]
    types = [
        instance["InstanceType"]
        for reservation in reservations
        for instance in reservation["Instances"]
        if (instance.get("InstanceLifecycle") == "spot") == spot
        and _is_standard(instance["InstanceType"])
    ]
    if not types:
        return 0
    known = instance_types(account, sorted(set(types)))
    return sum(known[name].vcpus for name in types if name in known)


def _image(account: AwsAccount, settings: AwsSettings) -> _Seen[MachineImage]:
    image = find_machine_image(account, settings.ami)
    another = "Name another in the setting aws.ami (TOOLKIT_AWS__AMI), or leave it out."
    problems = []
    if image.state != "available":
        problems.append(Problem(f"The machine image {image.id} is {image.state}.", another))
    if image.architecture != ARCHITECTURE:
        what = (
            f"The machine image {image.id} is for {image.architecture}; the locked packages are "
            f"for {ARCHITECTURE}."
        )
        problems.append(Problem(what, another))
    if not image.root_device:
        what = f"The machine image {image.id} does not boot from an EBS volume."
        problems.append(Problem(what, another))
    if image.root_gib > settings.volume_gib:
        what = (
            f"The machine image {image.id} needs {image.root_gib} GiB; the setting aws.volume_gib "
            f"is {settings.volume_gib}."
        )
        remedy = f"Set aws.volume_gib to {image.root_gib} or more (TOOLKIT_AWS__VOLUME_GIB)."
        problems.append(Problem(what, remedy))
    note = f"{image.passed_over} Instead: the newest of Canonical's images."
    return _Seen(
        image,
        f"{image.id}, {image.name}",
        tuple(problems),
        (note,) if image.passed_over else (),
    )


def _network(
    account: AwsAccount, settings: AwsSettings, offer: _Offer | None
) -> _Seen[tuple[Zone, ...]]:
    """Find the subnets in which nodes can be started, and reach the internet."""
    subnets = find_subnets(account, settings.subnet)
    usable: list[Subnet] = []
    refused: dict[Problem, list[Subnet]] = {}
    for subnet in subnets:
        why_not = _why_not(subnet, offer, nodes=settings.nodes, region=account.region)
        (refused.setdefault(why_not, []) if why_not else usable).append(subnet)
    if usable:
        unsure = ", ".join(each.id for each in usable if each.route in {"other", "unknown"})
        note = (
            f"Whether nodes reach the internet from {unsure} can't be told from here. They fetch "
            "their packages from there."
        )
        zones = tuple(Zone(each.zone, each.id, each.vpc) for each in usable)
        return _Seen(zones, ", ".join(map(str, usable)), notes=(note,) if unsure else ())
    problems = [
        Problem(f"{', '.join(map(str, found))}: {why_not.what}", why_not.remedy)
        for why_not, found in refused.items()
    ]
    return _Seen(None, problems=tuple(problems))


def _why_not(subnet: Subnet, offer: _Offer | None, *, nodes: int, region: str) -> Problem | None:
    """Say why nodes can't be started in a subnet, if they can't."""
    another = "name another subnet in the setting aws.subnet (TOOLKIT_AWS__SUBNET)."
    if offer and offer.zones and subnet.zone not in offer.zones:
        return Problem(
            f"the zone does not offer {offer.instance_type.name}.",
            f"{', '.join(offer.zones)} do: {another}",
        )
    if subnet.free_addresses < nodes:
        return Problem(
            f"{subnet.free_addresses} addresses are left for {nodes} nodes.",
            f"Free some, or {another}",
        )
    if subnet.route == "none":
        return Problem(
            "there is no route to the internet, from where nodes fetch their packages.",
            f"Add one to an internet gateway or a NAT gateway, or {another}",
        )
    if subnet.route == "internet gateway" and not subnet.public_addresses:
        return Problem(
            "instances get no public address, and the internet gateway lets nothing else through.",
            "Give them one (`aws ec2 modify-subnet-attribute --map-public-ip-on-launch --region "
            f"{region} --subnet-id ID`), or {another}",
        )
    return None


def _instance_profile(account: AwsAccount, settings: AwsSettings) -> _Seen[ExistingProfile]:
    name = settings.instance_profile
    if name is None:
        note = (
            "Whether you may create roles shows at the launch. Who may not has an administrator "
            "make an instance profile, and names it in the setting aws.instance_profile."
        )
        return _Seen(None, "made for the promotion, and removed with it", notes=(note,))
    found = find_instance_profile(account, name)
    role = found.role_arn.rpartition("/")[2]
    return _Seen(found, f"{name}, with the role {role}")


def _request(
    identity: Identity,
    settings: AwsSettings,
    *,
    image: MachineImage,
    zones: tuple[Zone, ...],
    existing: ExistingProfile | None,
) -> LaunchRequest:
    """Return what a launch would be asked for, but for what is made for it alone."""
    return LaunchRequest(
        promotion=new_run_id(),
        owner=identity.user,
        image=image,
        zones=zones,
        types=(settings.instance_type,),
        user_data="#!/bin/bash\n",
        policy=Policy(()),
        nodes=settings.nodes,
        spot=settings.spot,
        volume_gib=settings.volume_gib,
        existing=existing,
    )


def _right_to_start(account: AwsAccount, request: LaunchRequest) -> _Seen[None]:
    """Ask EC2 whether it would start the nodes; it starts none.

    Their security group is not there yet, so that EC2 takes the default one of the VPC. Whoever may
    start instances in the promotions' own groups only is then denied that group, which says nothing
    of the launch.
    """
    wanted = instance_arguments(
        request,
        region=account.region,
        instance_type=request.types[0],
        subnet=request.zones[0].subnet,
        profile={"Arn": request.existing.arn} if request.existing else None,
    )
    found = f"{request.nodes} x {request.types[0]} in {request.zones[0].name}"
    try:
        with aws_errors(doing=f"start {found}, in a dry run"):
            account.client("ec2").run_instances(**wanted, DryRun=True)
    except AccessDeniedError as exc:
        if not _OF_A_GROUP.search(exc.message):
            raise
        return _Seen(None, f"{found}, as far as can be told without their security group")
    except AwsError as exc:
        if exc.code != "DryRunOperation":
            raise
    return _Seen(None, found)
