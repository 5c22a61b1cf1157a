"""The rights of a promotion: what the person who promotes needs in AWS, and what the node gets.

What an action can be limited by is in the Service Authorization Reference:
https://docs.aws.amazon.com/service-authorization/latest/reference/reference_policies_actions-resources-contextkeys.html
A statement is limited to the promotions' own things, by name or by tag, wherever an action takes a
resource or a condition; where it takes none, the resource is ``*``.

Of moto, which judges these policies in tests: it knows no resources but roles that exist, so that
it denies whatever is limited to another one; and it ignores conditions, ``iam:PassRole``,
``ec2:CreateTags`` and the tagging actions that IAM and SSM ask for beside a creation.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from toolkit.cloud.aws.machine_image import PARAMETER
from toolkit.cloud.aws.names import IAM_PATH, PARAMETER_PATH, RUN_TAG, spark_secret_name
from toolkit.runs import RUNS
from toolkit.storage import Location

if TYPE_CHECKING:
    from collections.abc import Sequence

    from toolkit.cloud.aws.account import Identity
    from toolkit.cloud.aws.instance_profile import ExistingProfile

__all__ = [
    "LONGEST_MANAGED",
    "NODE_TRUST",
    "Condition",
    "Policy",
    "Statement",
    "node_policy",
    "person_policy",
]

# The bucket's folders, as bundle.py, status.py, preflight.py and others have them; the tests hold
# these against those.
_BUNDLES = "toolkit/bundles"
_PROMOTIONS = "toolkit/promotions"
_TOOLKIT = "toolkit"
_IMAGES = "images"
_MODELS = "models"
_PREPARED = "models/prepared"


LONGEST_MANAGED = 6_144
"""Characters of a managed policy, not counting spaces and line breaks.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html
"""


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition, for example ``StringEquals``, ``ec2:Region``, ``("eu-west-3",)``."""

    operator: str
    key: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Statement:
    """What is allowed, and why.

    Attributes
    ----------
    sid
        Name of the statement: the step that needs it, and for what.
    actions
        What is allowed: ``ec2:RunInstances``.
    resources
        ARNs that it is allowed on, or ``*``.
    conditions
        All of them have to hold.
    """

    sid: str
    actions: tuple[str, ...]
    resources: tuple[str, ...] = ("*",)
    conditions: tuple[Condition, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the statement as IAM reads it."""
        conditions: dict[str, dict[str, str | list[str]]] = {}
        for each in self.conditions:
            conditions.setdefault(each.operator, {})[each.key] = _one_or_all(each.values)
        return {
            "Sid": self.sid,
            "Effect": "Allow",
            "Action": _one_or_all(self.actions),
            "Resource": _one_or_all(self.resources),
        } | ({"Condition": conditions} if conditions else {})


@dataclass(frozen=True, slots=True)
class Policy:
    """What is allowed; everything else is not."""

    statements: tuple[Statement, ...]

    @property
    def actions(self) -> frozenset[str]:
        """All actions that are allowed on something."""
        return frozenset(action for each in self.statements for action in each.actions)

    def without(self, action: str) -> Policy:
        """Return the policy with one action removed from every statement."""
        kept = (
            replace(each, actions=tuple(name for name in each.actions if name != action))
            for each in self.statements
        )
        return Policy(tuple(each for each in kept if each.actions))

    def to_json(self, *, indent: int | None = None) -> str:
        """Return the policy document; without an indent as short as it gets."""
        document = {
            "Version": "2012-10-17",
            "Statement": [each.to_dict() for each in self.statements],
        }
        return json.dumps(document, indent=indent, separators=None if indent else (",", ":"))

    def split(self, *, longest: int = LONGEST_MANAGED) -> tuple[Policy, ...]:
        """Return as few policies as hold these statements in documents that IAM takes.

        Names of buckets alone may make it two.

        Parameters
        ----------
        longest
            Characters of a document, not counting spaces and line breaks.
        """
        policies = [Policy(())]
        for statement in self.statements:
            longer = Policy((*policies[-1].statements, statement))
            if policies[-1].statements and len(longer.to_json()) > longest:
                policies.append(Policy((statement,)))
            else:
                policies[-1] = longer
        return tuple(policies)


NODE_TRUST = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Service": "ec2.amazonaws.com"},
                "Action": "sts:AssumeRole",
            }
        ],
    }
)
"""Who may take on the node's role: EC2, for an instance."""


def person_policy(  # noqa: PLR0913 - all that decides on what is needed
    identity: Identity,
    *,
    region: str,
    bucket: str,
    reads: Sequence[Location] = (),
    output: Location | None = None,
    existing: ExistingProfile | None = None,
) -> Policy:
    """Return what whoever promotes needs: every call of preflight, plan, launch, follow and sweep.

    ``sts:GetCallerIdentity`` needs no permission; nor do the keys that AWS keeps for an account,
    ``aws/ssm`` for Spark's secret and ``aws/ebs`` for disks. Where disks are encrypted with another
    key by default, its key policy has to let these people use it.

    Parameters
    ----------
    identity
        Whose account and partition it is.
    region
        Region of the instances.
    bucket
        The profile's bucket.
    reads
        Images and weights that lie elsewhere than below ``images/`` and ``models/`` in that bucket.
    output
        Where ``--output`` leads; what lies there is read.
    existing
        An instance profile that has been made for the nodes. Without one the person may write the
        policy of a role and hand that role to an instance, and so get for it whatever they write:
        where that is too much, let an administrator make the profile, of `node_policy`.
    """
    partition, account = identity.arn.split(":")[1], identity.account

    def ec2(*kinds: str) -> tuple[str, ...]:
        return tuple(f"arn:{partition}:ec2:{region}:{account}:{kind}/*" for kind in kinds)

    def iam(name: str) -> str:
        return f"arn:{partition}:iam::{account}:{name}"

    def ssm(name: str) -> str:
        return f"arn:{partition}:ssm:{region}:{account}:parameter{name}"

    role, profile = iam(f"role{IAM_PATH}*"), iam(f"instance-profile{IAM_PATH}*")
    here = Condition("StringEquals", "ec2:Region", (region,))
    to_ec2 = Condition("StringEquals", "iam:PassedToService", ("ec2.amazonaws.com",))
    becomes_ours = Condition("Null", f"aws:RequestTag/{RUN_TAG}", ("false",))
    is_ours = Condition("Null", f"aws:ResourceTag/{RUN_TAG}", ("false",))
    return Policy(
        (
            # EC2 shows all or nothing of a region. Preflight and plan compare machines and look at
            # the network, launch and sweep look for what is there already, follow at the instances.
            Statement(
                "AllLook",
                (
                    "ec2:DescribeImages",
                    "ec2:DescribeInstanceTypeOfferings",
                    "ec2:DescribeInstanceTypes",
                    "ec2:DescribeInstances",
                    "ec2:DescribeRouteTables",
                    "ec2:DescribeSecurityGroups",
                    "ec2:DescribeSpotPriceHistory",
                    "ec2:DescribeSubnets",
                    "ec2:DescribeVolumes",
                ),
                conditions=(here,),
            ),
            Statement(
                "PreflightReadsUbuntusId",
                ("ssm:GetParameter",),
                (f"arn:{partition}:ssm:{region}::parameter{PARAMETER}",),
            ),
            Statement(
                "PreflightQuota",
                ("servicequotas:GetServiceQuota",),
                (f"arn:{partition}:servicequotas:{region}:{account}:ec2/*",),
            ),
            Statement("PlanPrices", ("pricing:GetProducts",)),  # which takes no resource
            # The network has no tag of ours: two statements.
            Statement(
                "LaunchGroup",
                ("ec2:CreateSecurityGroup",),
                ec2("security-group"),
                (becomes_ours,),
            ),
            Statement("LaunchGroupInNetwork", ("ec2:CreateSecurityGroup",), ec2("vpc")),
            Statement(
                "LaunchTags",
                ("ec2:CreateTags",),
                ec2("instance", "security-group", "volume"),
                (
                    Condition(
                        "StringEquals", "ec2:CreateAction", ("CreateSecurityGroup", "RunInstances")
                    ),
                ),
            ),
            # EC2 asks once for each thing that an instance is made of: what becomes ours has to
            # carry the tag, and be as safe as the launch makes it.
            Statement(
                "LaunchInstance",
                ("ec2:RunInstances",),
                ec2("instance"),
                (becomes_ours, Condition("StringEquals", "ec2:MetadataHttpTokens", ("required",))),
            ),
            Statement(
                "LaunchDisk",
                ("ec2:RunInstances",),
                ec2("volume"),
                (becomes_ours, Condition("Bool", "ec2:Encrypted", ("true",))),
            ),
            Statement("LaunchInGroup", ("ec2:RunInstances",), ec2("security-group"), (is_ours,)),
            # Whose the image is can't be asked: a profile may name any, and EC2 knows Canonical by
            # its number or as `amazon`.
            Statement(
                "LaunchInNetwork",
                ("ec2:RunInstances",),
                (*ec2("network-interface", "subnet"), f"arn:{partition}:ec2:{region}::image/*"),
            ),
            # The first, of the launch, lets the nodes into their own group.
            Statement(
                "SweepOurs",
                (
                    "ec2:AuthorizeSecurityGroupIngress",
                    "ec2:DeleteSecurityGroup",
                    "ec2:DeleteVolume",
                    "ec2:TerminateInstances",
                ),
                ec2("instance", "security-group", "volume"),
                (is_ours,),
            ),
            # The first spot instance of an account needs a role of AWS's own.
            Statement(
                "LaunchSpot",
                ("iam:CreateServiceLinkedRole",),
                (iam("role/aws-service-role/spot.amazonaws.com/AWSServiceRoleForEC2Spot"),),
                (Condition("StringEquals", "iam:AWSServiceName", ("spot.amazonaws.com",)),),
            ),
            # The lists take no resource. What is in them is looked at for its tags; preflight looks
            # at the profile that the settings name.
            Statement("SweepListsRoles", ("iam:ListInstanceProfiles", "iam:ListRoles")),
            Statement(
                "SweepLooksAtRoles",
                ("iam:GetInstanceProfile", "iam:GetRole"),
                (profile, role, *((existing.arn,) if existing else ())),
            ),
            *(() if existing else _role_making(role, profile, becomes_ours)),
            # To the profile, and to the instances.
            Statement(
                "LaunchPassesRole",
                ("iam:PassRole",),
                (existing.role_arn if existing else role,),
                (to_ec2,),
            ),
            Statement(
                "LaunchSecret",
                ("ssm:AddTagsToResource", "ssm:PutParameter"),
                (ssm(f"{PARAMETER_PATH}/*"),),
                (becomes_ours,),
            ),
            Statement(
                "SweepSecret",
                ("ssm:DeleteParameter", "ssm:ListTagsForResource"),
                (ssm(f"{PARAMETER_PATH}/*"),),
            ),
            # Whoever may read a path may read all below it.
            Statement("SweepListsSecrets", ("ssm:GetParametersByPath",), (ssm(PARAMETER_PATH),)),
            *_person_on_s3(partition, bucket=bucket, reads=reads, output=output),
        )
    )


def _role_making(role: str, profile: str, becomes_ours: Condition) -> tuple[Statement, ...]:
    """Allow to make roles and profiles below the path, which is nobody else's, and to undo it."""
    return (
        Statement(
            "LaunchMakesRole",
            (
                "iam:CreateInstanceProfile",
                "iam:CreateRole",
                "iam:TagInstanceProfile",
                "iam:TagRole",
            ),
            (profile, role),
            (becomes_ours,),
        ),
        Statement(
            "LaunchFillsRole",
            ("iam:AddRoleToInstanceProfile", "iam:PutRolePolicy"),
            (profile, role),
        ),
        Statement(
            "SweepRole",
            (
                "iam:DeleteInstanceProfile",
                "iam:DeleteRole",
                "iam:DeleteRolePolicy",
                "iam:RemoveRoleFromInstanceProfile",
            ),
            (profile, role),
        ),
    )


def _person_on_s3(
    partition: str, *, bucket: str, reads: Sequence[Location], output: Location | None
) -> tuple[Statement, ...]:
    own = Location(bucket)
    elsewhere = [*reads, *([output] if output else [])]
    kept = [own / name for name in (_TOOLKIT, RUNS, _MODELS, _IMAGES)]
    written = [own / name for name in (_TOOLKIT, _IMAGES)]
    # It says "running" when its node has died: whoever promotes puts that right.
    records = f"{_bucket_arn(partition, bucket)}/{RUNS}/*/run.json"
    return (
        Statement("PreflightBucket", ("s3:GetBucketLocation",), (_bucket_arn(partition, bucket),)),
        # HeadBucket is s3:ListBucket, too, without a prefix.
        *_listing(partition, [*kept, *elsewhere], sid="AllList"),
        # The rehearsal reads images, collect reads the run.
        Statement("AllRead", ("s3:GetObject",), _object_arns(partition, [*kept, *elsewhere])),
        # The bundle, the job, and images from a folder of this machine. What of them breaks off
        # would be kept, and charged, if it could not be aborted.
        Statement(
            "UploadWrites",
            ("s3:AbortMultipartUpload", "s3:PutObject"),
            (*_object_arns(partition, written), records),
        ),
        # The preflight's probe; the last words of a node that is gone, when another one goes on.
        Statement(
            "ProbeAndResume", ("s3:DeleteObject",), _object_arns(partition, [own / _PROMOTIONS])
        ),
    )


def node_policy(  # noqa: PLR0913 - all that decides on what is needed
    identity: Identity,
    *,
    region: str,
    bucket: str,
    promotion: str = "*",
    reads: Sequence[Location] = (),
    output: Location | None = None,
    has_secret: bool = True,
) -> Policy:
    """Return what a node may: read its bundle and images, write its run, say how it is.

    It ends itself by switching off, which needs no permission.

    Parameters
    ----------
    identity
        Whose account and partition it is.
    region
        Region of the instances.
    bucket
        The profile's bucket.
    promotion
        The promotion's id; ``*`` for a policy that serves all.
    reads
        Images of the job that lie elsewhere than below ``images/``.
    output
        Where ``--output`` leads; what lies there is replaced.
    has_secret
        Whether there is a Spark cluster with a secret: more than one node.
    """
    partition = identity.arn.split(":")[1]
    own = Location(bucket)
    its_folder = own / _PROMOTIONS / promotion
    runs = [own / RUNS, *((output,) if output else ())]
    written = [*runs, its_folder, own / _PREPARED]
    read = [*runs, its_folder, *(own / name for name in (_BUNDLES, _MODELS, _IMAGES)), *reads]
    parameter = f"arn:{partition}:ssm:{region}:{identity.account}:parameter"
    secret = Statement(
        "NodesReadSparksSecret",
        ("ssm:GetParameter",),
        (f"{parameter}{spark_secret_name(promotion)}",),
    )
    return Policy(
        (
            *_listing(partition, read, sid="RunLists"),
            Statement("BootAndRunRead", ("s3:GetObject",), _object_arns(partition, read)),
            Statement(
                "RunWritesResultsAndReports",
                ("s3:AbortMultipartUpload", "s3:PutObject"),
                _object_arns(partition, written),
            ),
            # A run deletes what an earlier attempt left in its own folders.
            Statement("RunReplacesItsParts", ("s3:DeleteObject",), _object_arns(partition, runs)),
            *((secret,) if has_secret else ()),
        )
    )


def _listing(partition: str, locations: Sequence[Location], *, sid: str) -> list[Statement]:
    """Allow listing below the locations, and to be told what is not there.

    Of an object that is not there S3 says so (404) to those alone who may list the bucket; others
    are denied (403), and could not tell "not yet" from "not allowed". Such a request has no prefix.
    The price: without one the names, not the contents, of the whole bucket can be listed.
    https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html
    """
    prefixes: dict[str, dict[str, None]] = {}
    for location in locations:
        below = f"{location.key}/*" if location.key else "*"
        prefixes.setdefault(_bucket_arn(partition, location.bucket), {})[below] = None
    # Not `StringLikeIfExists`, which would be one statement: MinIO does not know it.
    return [
        Statement(
            f"{sid}{number or ''}",
            ("s3:ListBucket",),
            (bucket,),
            (Condition("StringLike", "s3:prefix", tuple(below)),),
        )
        for number, (bucket, below) in enumerate(prefixes.items())
    ] + [
        Statement(
            f"{sid}NotThere",
            ("s3:ListBucket",),
            tuple(prefixes),
            (Condition("Null", "s3:prefix", ("true",)),),
        )
    ]


def _bucket_arn(partition: str, bucket: str) -> str:
    return f"arn:{partition}:s3:::{bucket}"


def _object_arns(partition: str, locations: Sequence[Location]) -> tuple[str, ...]:
    keys = {f"{each.bucket}/{each.key}/*" if each.key else f"{each.bucket}/*" for each in locations}
    return tuple(f"arn:{partition}:s3:::{key}" for key in sorted(keys))


def _one_or_all(values: tuple[str, ...]) -> str | list[str]:
    return values[0] if len(values) == 1 else list(values)
