"""Removes what promotions have left in AWS, found by its tag, and proves that nothing is left."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from toolkit.cloud.aws.account import (
    AccessDeniedError,
    AwsError,
    ExpiredError,
    ThrottledError,
    UnreachableError,
    aws_errors,
)
from toolkit.cloud.aws.names import (
    IAM_PATH,
    OWNER_TAG,
    PARAMETER_PATH,
    REGION_TAG,
    RUN_TAG,
    resource_name,
    spark_secret_name,
)
from toolkit.cloud.aws.patience import Patience
from toolkit.cloud.clock import MACHINE_CLOCK, Clock
from toolkit.cloud.launch import ROLE_POLICY
from toolkit.errors import JobError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from toolkit.cloud.aws.account import AwsAccount

__all__ = ["Found", "Kind", "find", "sweep"]

Kind = Literal["instance", "volume", "security group", "instance profile", "role", "secret"]

# EC2 takes minutes to end an instance, at the worst.
_PATIENCE_SECONDS = 600.0
# What was begun a moment ago, by a request whose reply was lost, EC2 may show only now: "eventual
# consistency", for which AWS names no time.
# https://docs.aws.amazon.com/ec2/latest/devguide/eventual-consistency.html
_SETTLED_SECONDS = 5.0
# The same of IAM: its lists may show what is gone, and of that it denies to tell.
_STALE_SECONDS = 30.0

_GONE = frozenset(
    {
        "InvalidGroup.NotFound",
        "InvalidInstanceID.NotFound",
        "InvalidResourceId",  # SSM's, of the tags of what is gone
        "InvalidVolume.NotFound",
        "NoSuchEntity",
        "ParameterNotFound",
    }
)
# Something else has to be gone first; IAM says so for a moment after that is gone, too.
_NOT_YET = frozenset({"DependencyViolation", "VolumeInUse"})
_CONFLICT = "DeleteConflict"
_GOING = frozenset({"shutting-down", "deleting"})


@dataclass(frozen=True, slots=True)
class Found:
    """One thing that carries the tag.

    Attributes
    ----------
    promotion, owner
        Whose it is, by its tags.
    kind
        What it is.
    name
        Its id in EC2, its name elsewhere.
    state
        In EC2's words: ``running``, ``shutting-down``, ``in-use``; empty where things have none.
    roles
        Names of the roles in an instance profile.
    """

    promotion: str
    owner: str
    kind: Kind
    name: str
    state: str = ""
    roles: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """Kind and name: what tells it from all others."""
        return f"{self.kind} {self.name}"

    def __str__(self) -> str:
        return self.title + (f" ({self.state})" if self.state else "")


def find(account: AwsAccount, promotion: str | None = None) -> list[Found]:
    """List what is there and carries the tag: what a sweep would remove.

    Parameters
    ----------
    account
        In the region of the instances. Roles belong to no region: those of promotions in other
        regions are left out.
    promotion
        The id of one; default: of all.

    Returns
    -------
    list of Found
        In the order in which they can be removed. Instances that have ended are not among them: EC2
        shows these for an hour.

    Raises
    ------
    AwsError
        AWS does not show something, or does not answer.
    """
    look = _Look(account, promotion)
    return [
        *look.instances(),
        *look.volumes(),
        *look.security_groups(),
        *look.instance_profiles(),
        *look.roles(),
        *look.secrets(),
    ]


def sweep(  # noqa: PLR0913 - what is removed, how patiently, and who is told
    account: AwsAccount,
    promotion: str,
    *,
    say: Callable[[str], None] = lambda _: None,
    patience: float = _PATIENCE_SECONDS,
    settled: float = _SETTLED_SECONDS,
    clock: Clock = MACHINE_CLOCK,
) -> list[Found]:
    """Remove all that a promotion has left, whoever runs it, and prove that nothing is there.

    It goes in rounds: look, remove what can be removed now, look again. So what appears only
    meanwhile is removed, too, and what goes meanwhile is no matter. One refusal keeps it from
    nothing else.

    Parameters
    ----------
    account
        In the region of the instances.
    promotion
        The id.
    say
        Told each step before it is taken.
    patience
        Seconds until what can't be removed yet counts as left.
    settled
        Seconds for which nothing must have been there.
    clock
        Measures the time and makes the pauses.

    Returns
    -------
    list of Found
        What has been removed, as it was first found.

    Raises
    ------
    JobError
        Something is still there: all of it is named, and why.
    AwsError
        AWS does not show what there is, does not answer, or the credentials have expired.
    """
    work = _Sweep(account, promotion, say, clock)
    return work.run(Patience(patience, clock), settled=settled)


@dataclass
class _Sweep:
    """The rounds; things go by their titles.

    Attributes
    ----------
    seen
        All that was ever found.
    refused, waiting
        What AWS will not remove, and what not yet, and why.
    stale
        How long IAM may go on to contradict itself, since it does.
    said
        What need not be said again.
    """

    account: AwsAccount
    promotion: str
    say: Callable[[str], None]
    clock: Clock
    seen: dict[str, Found] = field(default_factory=dict)
    refused: dict[str, AwsError] = field(default_factory=dict)
    waiting: dict[str, AwsError] = field(default_factory=dict)
    stale: Patience | None = None
    said: set[str] = field(default_factory=set)

    def run(self, patience: Patience, *, settled: float) -> list[Found]:
        """Go round until nothing is left, or only what can't be removed."""
        quiet: Patience | None = None
        while True:
            left = self._look()
            if left:
                quiet = None
                self._remove(left)
                if patience.is_over or all(each.title in self.refused for each in left):
                    raise self._still_there(left)
            elif left is not None:
                quiet = quiet or Patience(settled, self.clock)
                if quiet.is_over:
                    return list(self.seen.values())
            (quiet or patience).pause()

    def _look(self) -> list[Found] | None:
        """Return what is there; None if IAM contradicts itself."""
        try:
            left = find(self.account, self.promotion)
        except AccessDeniedError:
            if not self.seen or self._is_stale_for_long():
                raise
            return None
        self.seen |= {each.title: each for each in left if each.title not in self.seen}
        return left

    def _is_stale_for_long(self) -> bool:
        self.stale = self.stale or Patience(_STALE_SECONDS, self.clock)
        return self.stale.is_over

    def _remove(self, left: list[Found]) -> None:
        """Remove what can be removed now: nothing before the instances that it serves.

        Their last words go to the bucket by the rights of their role.
        """
        instances = [each for each in left if each.kind == "instance"]
        ending = [each.name for each in instances if each.title not in self.refused]
        for each in left:
            if each.title in self.refused or each.state in _GOING:
                continue
            if each.kind == "instance" or not ending:
                self._remove_one(each, is_stuck=bool(instances))
        if ending:
            self._say(f"Waiting until {', '.join(ending)} have ended")

    def _remove_one(self, each: Found, *, is_stuck: bool) -> None:
        self._say(f"Removing {each.title}")
        try:
            for call in self._calls(each):
                with _gone_is_no_matter(), aws_errors(doing=f"remove {each.title}"):
                    call()
        except (ExpiredError, UnreachableError):
            raise
        except AwsError as exc:
            is_early = exc.code in _NOT_YET and not is_stuck
            is_stale = exc.code == _CONFLICT and not self._is_stale_for_long()
            later = is_early or is_stale or isinstance(exc, ThrottledError)
            (self.waiting if later else self.refused)[each.title] = exc

    def _calls(self, each: Found) -> list[Callable[[], object]]:
        """Return the calls that remove a thing, in order."""
        name = each.name
        ec2, iam, ssm = (self.account.client(service) for service in ("ec2", "iam", "ssm"))
        calls: dict[Kind, list[Callable[[], object]]] = {
            "instance": [lambda: ec2.terminate_instances(InstanceIds=[name])],
            "volume": [lambda: ec2.delete_volume(VolumeId=name)],
            "security group": [lambda: ec2.delete_security_group(GroupId=name)],
            "instance profile": [
                *(
                    partial(
                        iam.remove_role_from_instance_profile,
                        InstanceProfileName=name,
                        RoleName=role,
                    )
                    for role in each.roles
                ),
                lambda: iam.delete_instance_profile(InstanceProfileName=name),
            ],
            "role": [
                lambda: iam.delete_role_policy(RoleName=name, PolicyName=ROLE_POLICY),
                lambda: iam.delete_role(RoleName=name),
            ],
            "secret": [lambda: ssm.delete_parameter(Name=name)],
        }
        return calls[each.kind]

    def _say(self, text: str) -> None:
        if text not in self.said:
            self.said.add(text)
            self.say(text)

    def _still_there(self, left: list[Found]) -> JobError:
        why = self.waiting | self.refused
        lines = [
            f"{each}: {why[each.title].message}" if each.title in why else str(each)
            for each in left
        ]
        return JobError(
            f"Of promotion {self.promotion} there is still:\n  " + "\n  ".join(lines),
            remedy="Mend what AWS says, and call "
            f"`toolkit sweep {self.promotion}` again: what is there may be charged.",
        )


@contextmanager
def _gone_is_no_matter() -> Iterator[None]:
    try:
        yield
    except AwsError as exc:
        if exc.code not in _GONE:
            raise


@dataclass(frozen=True)
class _Look:
    """Lists the things of one promotion or of all, a kind at a time."""

    account: AwsAccount
    promotion: str | None

    def instances(self) -> Iterator[Found]:
        for reservation in self._listed("ec2", "describe_instances", "Reservations"):
            for each in reservation["Instances"]:
                if each["State"]["Name"] != "terminated":
                    state = each["State"]["Name"]
                    yield from self._ours("instance", each["InstanceId"], each["Tags"], state)

    def volumes(self) -> Iterator[Found]:
        for each in self._listed("ec2", "describe_volumes", "Volumes"):
            if each["State"] != "deleted":
                yield from self._ours("volume", each["VolumeId"], each["Tags"], each["State"])

    def security_groups(self) -> Iterator[Found]:
        for each in self._listed("ec2", "describe_security_groups", "SecurityGroups"):
            yield from self._ours("security group", each["GroupId"], each["Tags"])

    def instance_profiles(self) -> Iterator[Found]:
        iam = self.account.client("iam")
        for each in self._listed("iam", "list_instance_profiles", "InstanceProfiles"):
            name = each["InstanceProfileName"]
            if self._may_be_ours(name, resource_name) and each["Path"] == IAM_PATH:
                with _gone_is_no_matter(), aws_errors(doing=f"look at instance profile {name}"):
                    profile = iam.get_instance_profile(InstanceProfileName=name)["InstanceProfile"]
                    roles = tuple(role["RoleName"] for role in profile["Roles"])
                    for found in self._ours("instance profile", name, profile.get("Tags", [])):
                        yield replace(found, roles=roles)

    def roles(self) -> Iterator[Found]:
        iam = self.account.client("iam")
        for each in self._listed("iam", "list_roles", "Roles"):
            name = each["RoleName"]
            if self._may_be_ours(name, resource_name) and each["Path"] == IAM_PATH:
                with _gone_is_no_matter(), aws_errors(doing=f"look at role {name}"):
                    role = iam.get_role(RoleName=name)["Role"]
                    yield from self._ours("role", name, role.get("Tags", []))

    def secrets(self) -> Iterator[Found]:
        ssm = self.account.client("ssm")
        for each in self._listed("ssm", "get_parameters_by_path", "Parameters"):
            name = each["Name"]
            if self._may_be_ours(name, spark_secret_name):
                with _gone_is_no_matter(), aws_errors(doing=f"look at secret {name}"):
                    answer = ssm.list_tags_for_resource(ResourceType="Parameter", ResourceId=name)
                    yield from self._ours("secret", name, answer["TagList"])

    def _listed(self, service: str, operation: str, of: str) -> list[dict[str, Any]]:
        """Return all that AWS lists, as far as it can be asked for that of promotions only."""
        tag = {"Name": "tag-key", "Values": [RUN_TAG]}
        if self.promotion:
            tag = {"Name": f"tag:{RUN_TAG}", "Values": [self.promotion]}
        limits: dict[str, dict[str, Any]] = {
            "ec2": {"Filters": [tag]},
            "iam": {"PathPrefix": IAM_PATH},
            "ssm": {"Path": PARAMETER_PATH, "Recursive": True},
        }
        with aws_errors(doing=f"look for what promotions have left: {operation}"):
            pages = self.account.client(service).get_paginator(operation)
            return [each for page in pages.paginate(**limits[service]) for each in page[of]]

    def _may_be_ours(self, name: str, name_of: Callable[[str], str]) -> bool:
        return self.promotion is None or name == name_of(self.promotion)

    def _ours(
        self, kind: Kind, name: str, marks: Iterable[Mapping[str, str]], state: str = ""
    ) -> Iterator[Found]:
        """Yield the thing if its tags say that it is what is looked for, and here."""
        tags = {mark["Key"]: mark["Value"] for mark in marks}
        promotion = tags.get(RUN_TAG)
        here = tags.get(REGION_TAG, self.account.region) == self.account.region
        if promotion and here and self.promotion in {None, promotion}:
            yield Found(promotion, tags.get(OWNER_TAG, ""), kind, name, state)
