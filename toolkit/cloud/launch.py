"""Starts the instances of a promotion and all that they need, each once, whatever was interrupted.

Everything has its tag from the moment it exists, so that a sweep finds it; and everything has a
name that the promotion's id gives, so that a launch that is called again goes on with it.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from toolkit.cloud.aws.account import AwsError, CapacityError, aws_errors
from toolkit.cloud.aws.names import IAM_PATH, RUN_TAG, resource_name, spark_secret_name, tags
from toolkit.cloud.aws.patience import repeat
from toolkit.cloud.aws.policy import NODE_TRUST
from toolkit.cloud.clock import MACHINE_CLOCK, Clock
from toolkit.errors import JobError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from toolkit.cloud.aws.account import AwsAccount
    from toolkit.cloud.aws.instance_profile import ExistingProfile
    from toolkit.cloud.aws.machine_image import MachineImage
    from toolkit.cloud.aws.network import Zone
    from toolkit.cloud.aws.policy import Policy

__all__ = [
    "AT_WORK",
    "ROLE_POLICY",
    "LaunchRequest",
    "Launched",
    "instance_arguments",
    "launch",
    "node_state",
]

T = TypeVar("T")

ROLE_POLICY = "promotion"
"""Name of the policy inside the node's role."""

AT_WORK = frozenset({"pending", "running"})
"""EC2's names of the states in which an instance works, or is about to.

https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-instance-lifecycle.html
"""

_SECRET_BYTES = 32
# A new instance profile takes EC2 about ten seconds to know; AWS names no limit.
_PATIENCE_SECONDS = 120.0
# A token can't be used again once its instance has ended: so often a promotion can be resumed in
# one zone, with one type, within the day for which EC2 remembers tokens.
_TOKENS = 20
# The token's instances have ended: boto3's issue 4406 has the words.
_ENDED = "IdempotentInstanceTerminated"
# First a new one is an "Invalid IAM Instance Profile name", then it "has no associated IAM Roles".
_ABOUT_PROFILE = re.compile(r"iam ?instance ?profile", re.IGNORECASE)
_UNSEEN = "InvalidGroup.NotFound"
_LIVE = ("pending", "running", "stopping", "stopped")


@dataclass(frozen=True, kw_only=True)
class LaunchRequest:
    """What to start.

    Parameters
    ----------
    promotion
        Its id.
    owner
        Who promotes: `toolkit.cloud.aws.account.Identity.user`.
    image
        What the nodes boot.
    zones
        Where they may be, in order of preference; all in one network. All nodes go to one zone.
    types
        Instance types, in order of preference: the next one is tried when no zone has the one
        before.
    user_data
        What a node does when it has booted; no secret.
    policy
        What a node may, in the role that is created for it; not used with `existing`.
    nodes
        How many instances; at least 1. With more there is a secret for their Spark, and they reach
        each other.
    spot
        Whether they are spot instances.
    volume_gib
        Size of a node's disk, in GiB.
    existing
        An instance profile that has been made for the nodes; None: one is created.
    """

    promotion: str
    owner: str
    image: MachineImage
    zones: tuple[Zone, ...]
    types: tuple[str, ...]
    user_data: str
    policy: Policy
    nodes: int = 1
    spot: bool = False
    volume_gib: int = 30
    existing: ExistingProfile | None = None


@dataclass(frozen=True, slots=True)
class Launched:
    """The instances of a promotion.

    Attributes
    ----------
    instance_ids
        The first one is Spark's master: it has the launch index 0.
    zone, instance_type, spot
        What it came to be, the same for all.
    adopted
        Whether they had been started before, by a launch that was interrupted.
    """

    instance_ids: tuple[str, ...]
    zone: str
    instance_type: str
    spot: bool
    adopted: bool = False


def launch(
    account: AwsAccount,
    request: LaunchRequest,
    *,
    say: Callable[[str], None] = lambda _: None,
    patience: float = _PATIENCE_SECONDS,
    clock: Clock = MACHINE_CLOCK,
) -> Launched:
    """Start the instances, or go on with what an interrupted launch of the same promotion has made.

    Whatever happens, what was made until then is left to `toolkit.cloud.sweep`.

    Parameters
    ----------
    account
        In the region of the instances.
    request
        What to start.
    say
        Told each step before it is taken.
    patience
        Seconds for AWS to see in one service what was made in another.
    clock
        Measures the time and makes the pauses.

    Raises
    ------
    CapacityError
        No zone has any of the types now.
    QuotaError
        The account may not have so many.
    AwsError
        AWS refuses, or does not answer.
    JobError
        Something of the promotion's name is there and not the promotion's, or not as it should be.
    """
    work = _Launch(account, request, say, patience, clock)
    if there := work.running():
        return there
    group = work.security_group()
    profile = {"Arn": request.existing.arn} if request.existing else work.instance_profile()
    if request.nodes > 1:
        work.spark_secret()
    return work.instances(group, profile)


def node_state(account: AwsAccount, promotion: str) -> str | None:
    """Return EC2's name for the state of the promotion's first node, the newest if there were more.

    Parameters
    ----------
    account
        In the region of the instances.
    promotion
        The id.

    Returns
    -------
    str or None
        ``pending``, ``running``, ``shutting-down``, ``terminated``, ``stopping``, ``stopped``; None
        if there is none. EC2 shows an instance for an hour after its end.

    Raises
    ------
    AwsError
        AWS refuses, or does not answer.
    """
    found = [each for each in _instances(account, promotion) if not each["AmiLaunchIndex"]]
    newest = max(found, key=lambda each: each["LaunchTime"], default=None)
    return None if newest is None else str(newest["State"]["Name"])


def instance_arguments(  # noqa: PLR0913 - what decides on an instance
    request: LaunchRequest,
    *,
    region: str,
    instance_type: str,
    subnet: str,
    group: str | None = None,
    profile: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Return what EC2's RunInstances is asked for, but for the client token.

    Parameters
    ----------
    request
        What to start.
    region
        Where.
    instance_type, subnet
        One of the request's types, and the subnet of one of its zones.
    group
        Id of the security group; None: EC2 takes the default one of the VPC.
    profile
        The instance profile, by ``Arn`` or ``Name``; None: no rights.
    """
    spot = {"SpotInstanceType": "one-time", "InstanceInterruptionBehavior": "terminate"}
    market = {"MarketType": "spot", "SpotOptions": spot}
    disk = {
        "VolumeSize": request.volume_gib,
        "VolumeType": "gp3",
        "Encrypted": True,
        "DeleteOnTermination": True,
    }
    arguments = {
        "ImageId": request.image.id,
        "InstanceType": instance_type,
        "MinCount": request.nodes,
        "MaxCount": request.nodes,  # all or none
        "SubnetId": subnet,
        "UserData": request.user_data,
        "InstanceInitiatedShutdownBehavior": "terminate",
        # A request for credentials takes a token, which no proxy on the node passes on.
        "MetadataOptions": {
            "HttpEndpoint": "enabled",
            "HttpTokens": "required",
            "HttpPutResponseHopLimit": 1,
        },
        "BlockDeviceMappings": [{"DeviceName": request.image.root_device, "Ebs": disk}],
        "TagSpecifications": [
            {"ResourceType": kind, "Tags": _tags(request, region)}
            for kind in ("instance", "volume")
        ],
    }
    if group is not None:
        arguments["SecurityGroupIds"] = [group]
    if profile is not None:
        arguments["IamInstanceProfile"] = profile
    if request.spot:
        arguments["InstanceMarketOptions"] = market
    return arguments


def _instances(
    account: AwsAccount, promotion: str, *, states: Sequence[str] = ()
) -> list[dict[str, Any]]:
    filters = [{"Name": f"tag:{RUN_TAG}", "Values": [promotion]}]
    if states:
        filters.append({"Name": "instance-state-name", "Values": list(states)})
    with aws_errors(doing=f"look for instances of promotion {promotion}"):
        pages = account.client("ec2").get_paginator("describe_instances").paginate(Filters=filters)
        return [
            instance
            for page in pages
            for reservation in page["Reservations"]
            for instance in reservation["Instances"]
        ]


def _tags(request: LaunchRequest, region: str) -> list[dict[str, str]]:
    own = tags(request.promotion, owner=request.owner, region=region)
    return [{"Key": key, "Value": value} for key, value in own.items()]


@dataclass(frozen=True)
class _Launch:
    """The steps."""

    account: AwsAccount
    request: LaunchRequest
    say: Callable[[str], None]
    patience: float
    clock: Clock

    @property
    def name(self) -> str:
        return resource_name(self.request.promotion)

    @property
    def tags(self) -> list[dict[str, str]]:
        return _tags(self.request, self.account.region)

    @property
    def ec2(self) -> Any:
        return self.account.client("ec2")

    @property
    def iam(self) -> Any:
        return self.account.client("iam")

    # --- instances that there are already ---

    def running(self) -> Launched | None:
        """Return the promotion's instances, if there are any."""
        self.say(f"Looking for instances of promotion {self.request.promotion}")
        found = _instances(self.account, self.request.promotion, states=_LIVE)
        if not found:
            return None
        states = {instance["State"]["Name"] for instance in found}
        if len(found) != self.request.nodes or not states <= AT_WORK:
            listed = ", ".join(
                f"{instance['InstanceId']} ({instance['State']['Name']})" for instance in found
            )
            raise JobError(
                f"Promotion {self.request.promotion} has instances already, and not the "
                f"{self.request.nodes} that it needs: {listed}.",
                remedy=f"Remove them with `toolkit sweep {self.request.promotion}`, and promote "
                "again.",
            )
        return self._launched(found, adopted=True)

    @staticmethod
    def _launched(instances: Iterable[dict[str, Any]], *, adopted: bool = False) -> Launched:
        ordered = sorted(instances, key=lambda each: int(each["AmiLaunchIndex"]))
        return Launched(
            instance_ids=tuple(each["InstanceId"] for each in ordered),
            zone=ordered[0]["Placement"]["AvailabilityZone"],
            instance_type=ordered[0]["InstanceType"],
            spot=ordered[0].get("InstanceLifecycle") == "spot",
            adopted=adopted,
        )

    # --- what they need ---

    def security_group(self) -> str:
        """Return the id of the group, which lets nobody in from outside."""
        vpc = self.request.zones[0].vpc
        self.say(f"Security group {self.name}: nobody outside reaches the nodes")

        def create() -> dict[str, Any]:
            answer = self.ec2.create_security_group(
                GroupName=self.name,
                Description=f"Nodes of promotion {self.request.promotion}",
                VpcId=vpc,
                TagSpecifications=[{"ResourceType": "security-group", "Tags": self.tags}],
            )
            return {"GroupId": answer["GroupId"], "IpPermissions": []}

        doing = f"create the security group {self.name}"
        group = self._made(create, doing, there="InvalidGroup.Duplicate") or self._group(vpc)
        if self.request.nodes > 1 and not group["IpPermissions"]:
            self._open_among_nodes(group["GroupId"])
        return str(group["GroupId"])

    def _group(self, vpc: str) -> dict[str, Any]:
        """Return the group that is there."""
        filters = {"group-name": self.name, "vpc-id": vpc}

        def look() -> dict[str, Any]:
            with aws_errors(doing=f"look at the security group {self.name}"):
                (group,) = self.ec2.describe_security_groups(
                    Filters=[{"Name": name, "Values": [value]} for name, value in filters.items()]
                )["SecurityGroups"] or [None]
            if group is None:
                raise AwsError(
                    f"EC2 has a security group {self.name} and does not show it.", code=_UNSEEN
                )
            return dict(group)

        group = self._repeat(look, again=lambda exc: exc.code == _UNSEEN)
        self._require_ours(group.get("Tags", []), f"security group {group['GroupId']}")
        own = [group["GroupId"]]
        for rule in group["IpPermissions"]:
            sources = [pair["GroupId"] for pair in rule.get("UserIdGroupPairs", [])]
            others = [rule.get(kind) for kind in ("IpRanges", "Ipv6Ranges", "PrefixListIds")]
            if sources != own or any(others):
                raise JobError(
                    f"The security group {self.name} lets others in, which the toolkit does not.",
                    remedy="Remove its inbound rules, or all that the promotion has: "
                    f"`toolkit sweep {self.request.promotion}`.",
                )
        return group

    def _open_among_nodes(self, group: str) -> None:
        """Let the nodes reach each other: Spark's executors choose their ports themselves."""
        self.say("The nodes reach each other")
        inside = {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group}]}
        self._made(
            lambda: self.ec2.authorize_security_group_ingress(
                GroupId=group, IpPermissions=[inside]
            ),
            f"let the nodes of {self.name} reach each other",
            there="InvalidPermission.Duplicate",
            unseen="InvalidGroup.NotFound",
        )

    def instance_profile(self) -> dict[str, str]:
        """Return how to name the instance profile, which has a role with the node's policy."""
        self.say(f"Role {self.name}")
        about = {"Path": IAM_PATH, "Tags": self.tags}
        if not self._made(
            lambda: self.iam.create_role(
                RoleName=self.name,
                AssumeRolePolicyDocument=NODE_TRUST,
                Description=f"Nodes of promotion {self.request.promotion}",
                **about,
            ),
            f"create the role {self.name}",
            there="EntityAlreadyExists",
        ):
            with aws_errors(doing=f"look at the role {self.name}"):
                role = self.iam.get_role(RoleName=self.name)["Role"]
            self._require_ours(role.get("Tags", []), f"role {self.name}")
        self.say("Its rights: to read the bundle and the images, to write the run")
        self._made(
            lambda: self.iam.put_role_policy(
                RoleName=self.name,
                PolicyName=ROLE_POLICY,
                PolicyDocument=self.request.policy.to_json(),
            ),
            f"give the role {self.name} its policy",
            unseen="NoSuchEntity",
        )
        self.say(f"Instance profile {self.name}")
        if not self._made(
            lambda: self.iam.create_instance_profile(InstanceProfileName=self.name, **about),
            f"create the instance profile {self.name}",
            there="EntityAlreadyExists",
        ):
            self._require_ours(self._profile().get("Tags", []), f"instance profile {self.name}")
        self.say("The role goes into the profile")
        if not self._made(
            lambda: self.iam.add_role_to_instance_profile(
                InstanceProfileName=self.name, RoleName=self.name
            ),
            f"put the role into the instance profile {self.name}",
            there="LimitExceeded",  # one role a profile
            unseen="NoSuchEntity",
        ):
            roles = [role["RoleName"] for role in self._profile()["Roles"]]
            if roles != [self.name]:
                raise self._not_ours(f"role in the instance profile {self.name}, {roles}")
        return {"Name": self.name}

    def _profile(self) -> dict[str, Any]:
        with aws_errors(doing=f"look at the instance profile {self.name}"):
            answer = self.iam.get_instance_profile(InstanceProfileName=self.name)
        return dict(answer["InstanceProfile"])

    def spark_secret(self) -> None:
        """Have a secret by which the nodes' Spark processes know each other."""
        name = spark_secret_name(self.request.promotion)
        self.say("Secret of the Spark cluster")
        self._made(
            lambda: self.account.client("ssm").put_parameter(
                Name=name,
                Type="SecureString",
                Value=secrets.token_urlsafe(_SECRET_BYTES),
                Tags=self.tags,
            ),
            f"keep the secret {name}",
            there="ParameterAlreadyExists",
        )

    def _made(
        self,
        call: Callable[[], T],
        doing: str,
        there: str | None = None,
        *,
        unseen: str | None = None,
    ) -> T | None:
        """Make something; None if it is there already.

        It is not looked for first: of a role that is not there IAM does not say so to those who may
        see the promotions' path alone, but denies. And boto3 asks again when a reply is lost, so
        that something can be there although it was not.

        Parameters
        ----------
        call
            Makes it.
        doing
            What goes on, for errors.
        there
            AWS's code for what is there already.
        unseen
            AWS's code for what has been made a moment ago.
        """

        def once() -> T:
            with aws_errors(doing=doing):
                return call()

        try:
            return self._repeat(once, again=lambda exc: exc.code == unseen)
        except AwsError as exc:
            if exc.code != there:
                raise
            return None

    def _repeat(self, call: Callable[[], T], *, again: Callable[[AwsError], bool]) -> T:
        return repeat(call, again=again, seconds=self.patience, clock=self.clock)

    def _require_ours(self, marks: Iterable[Mapping[str, str]], what: str) -> None:
        if {mark["Key"]: mark["Value"] for mark in marks}.get(RUN_TAG) != self.request.promotion:
            raise self._not_ours(what)

    def _not_ours(self, what: str) -> JobError:
        return JobError(
            f"There is a {what}, which promotion {self.request.promotion} has not made.",
            remedy="Remove it in AWS's console if nobody needs it, and promote again.",
        )

    # --- the instances ---

    def instances(self, group: str, profile: dict[str, str]) -> Launched:
        """Start them in the first zone, with the first type, that there are any of."""
        answers = []
        for instance_type in self.request.types:
            for zone in self.request.zones:
                self.say(f"{self.request.nodes} x {instance_type} in {zone.name}")
                wanted = instance_arguments(
                    self.request,
                    region=self.account.region,
                    instance_type=instance_type,
                    subnet=zone.subnet,
                    group=group,
                    profile=profile,
                )
                try:
                    return self._launched(self._start(wanted, zone.name))
                except CapacityError as exc:
                    answers.append(f"{instance_type} in {zone.name}: {exc.code}")
                    self.say(f"None there: {exc.code}")
        raise CapacityError(
            f"EC2 has no machines for {self.request.nodes} nodes now. " + "; ".join(answers) + ".",
            remedy="Try later, with another aws.instance_type or in another region"
            + (", or without --spot." if self.request.spot else "."),
            code="InsufficientInstanceCapacity",
        )

    def _start(self, wanted: dict[str, Any], zone: str) -> list[dict[str, Any]]:
        """Start what is wanted, once, however often it is asked for.

        EC2 answers a token that it knows with the instances that it started then. Once these have
        ended, it takes that token no more.
        """
        for number in range(_TOKENS):
            asked = wanted | {"ClientToken": _token(wanted, number)}
            try:
                started = self._repeat(partial(self._run, asked, zone), again=self._is_unseen)
            except AwsError as exc:
                if exc.code != _ENDED:
                    raise
                continue
            if all(each["State"]["Name"] in _LIVE for each in started):
                return started
        raise JobError(
            f"Promotion {self.request.promotion} has been started {_TOKENS} times in {zone} today.",
            remedy="Promote anew, as another promotion.",
        )

    def _run(self, asked: dict[str, Any], zone: str) -> list[dict[str, Any]]:
        with aws_errors(doing=f"start {asked['InstanceType']} in {zone}"):
            return list(self.ec2.run_instances(**asked)["Instances"])

    def _is_unseen(self, exc: AwsError) -> bool:
        """Whether EC2 does not know yet what was made a moment ago."""
        profile = exc.code == "InvalidParameterValue" and _ABOUT_PROFILE.search(exc.message)
        return exc.code == "InvalidGroup.NotFound" or bool(profile and not self.request.existing)


def _token(wanted: dict[str, Any], number: int) -> str:
    """Return the client token of an attempt: the same for the same, 64 characters."""
    text = json.dumps([wanted, number], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
