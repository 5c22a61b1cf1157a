"""What tests of launch, sweep and policy start, and how they look at what is there."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tests.support.clock import FastClock
from tests.support.ubuntu_images import NAME, add_image, backend
from toolkit.cloud import launch as launching
from toolkit.cloud import sweep as sweeping
from toolkit.cloud.aws.account import AwsAccount, Identity
from toolkit.cloud.aws.machine_image import MachineImage
from toolkit.cloud.aws.names import RUN_TAG
from toolkit.cloud.aws.network import Zone
from toolkit.cloud.aws.policy import node_policy
from toolkit.cloud.launch import Launched, LaunchRequest

if TYPE_CHECKING:
    from toolkit.cloud.sweep import Found

AMI = "ami-00000001"
ID = "20261125-101500-123ab"
OTHER_ID = "20261125-101500-456cd"
BUCKET = "orchard"
IDENTITY = Identity("123456789012", "arn:aws:iam::123456789012:user/ann")
SCRIPT = "#!/bin/bash\n# \u00e9: not ASCII, and no newline at the end\nset -e\nshutdown -h +90"
TYPES = ("c7i.2xlarge", "m7i.2xlarge")
LAUNCH = (
    "ec2:DescribeInstances",
    "ec2:CreateSecurityGroup",
    "ec2:AuthorizeSecurityGroupIngress",
    "iam:CreateRole",
    "iam:PutRolePolicy",
    "iam:CreateInstanceProfile",
    "iam:AddRoleToInstanceProfile",
    "ssm:PutParameter",
    "ec2:RunInstances",
)
"""What a launch of several nodes asks for, in order."""


def image(account: AwsAccount) -> MachineImage:
    """Return an Ubuntu that the region has."""
    add_image(account.region, AMI)
    return MachineImage(
        id=AMI,
        name=NAME,
        architecture="x86_64",
        root_device="/dev/sda1",
        root_gib=15,
        state="available",
    )


def zones(account: AwsAccount) -> tuple[Zone, ...]:
    """Return the default subnets of the region."""
    subnets = backend("ec2", account.region).describe_subnets()
    found = [Zone(each.availability_zone, each.id, each.vpc_id) for each in subnets]
    return tuple(sorted(found, key=lambda zone: zone.name))


def order(account: AwsAccount, promotion: str = ID, **given: object) -> LaunchRequest:
    """Return a request for one node."""
    nodes = int(given.get("nodes", 1))
    usual = LaunchRequest(
        promotion=promotion,
        owner="ann",
        image=image(account),
        zones=zones(account),
        types=TYPES,
        user_data=SCRIPT,
        policy=node_policy(
            IDENTITY,
            region=account.region,
            bucket=BUCKET,
            promotion=promotion,
            has_secret=nodes > 1,
        ),
    )
    return replace(usual, **given)


def launch(account: AwsAccount, request: LaunchRequest, **options: object) -> Launched:
    """Launch by a clock whose waits are over at once."""
    return launching.launch(account, request, **{"clock": FastClock(at_least=15).clock} | options)


def sweep(account: AwsAccount, promotion: str = ID, **options: object) -> list[Found]:
    """Sweep by such a clock, to the first look that finds nothing."""
    usual = {"settled": 0, "clock": FastClock(at_least=15).clock}
    return sweeping.sweep(account, promotion, **usual | options)


def living(account: AwsAccount, kind: str, promotion: str = ID) -> list[dict]:
    """Return what is there of a promotion, asked for plainly: not as the sweep does."""
    ec2, iam, ssm = (account.client(name) for name in ("ec2", "iam", "ssm"))
    tagged = [{"Name": f"tag:{RUN_TAG}", "Values": [promotion]}]
    if kind == "instances":
        return [
            instance
            for each in ec2.describe_instances(Filters=tagged)["Reservations"]
            for instance in each["Instances"]
            if instance["State"]["Name"] != "terminated"
        ]
    if kind == "volumes":
        return ec2.describe_volumes(Filters=tagged)["Volumes"]
    found, name = {
        "groups": lambda: (ec2.describe_security_groups()["SecurityGroups"], "GroupName"),
        "profiles": lambda: (
            iam.list_instance_profiles()["InstanceProfiles"],
            "InstanceProfileName",
        ),
        "roles": lambda: (iam.list_roles()["Roles"], "RoleName"),
        "secrets": lambda: (ssm.describe_parameters()["Parameters"], "Name"),
    }[kind]()
    return [each for each in found if promotion in each[name]]


def counts(account: AwsAccount, promotion: str = ID) -> dict[str, int]:
    """Return how many there are of each, as moto itself knows, whatever requests would show."""
    ec2, iam, ssm = (backend(name, account.region) for name in ("ec2", "iam", "ssm"))
    instances = [each for one in ec2.reservations.values() for each in one.instances]
    ours = {name for name, tags in ec2.tags.items() if tags.get(RUN_TAG) == promotion}
    names = {
        "groups": [each.name for of_vpc in ec2.groups.values() for each in of_vpc.values()],
        "profiles": [each.name for each in iam.instance_profiles.values()],
        "roles": [each.name for each in iam.roles.values()],
        "secrets": list(ssm._parameters),
    }
    return {
        "instances": len(
            [each for each in instances if each.id in ours and each.state != "terminated"]
        ),
        "volumes": len(ours & ec2.volumes.keys()),
        **{kind: sum(promotion in name for name in those) for kind, those in names.items()},
    }


ONE_OF_EACH = {
    "instances": 1,
    "volumes": 1,
    "groups": 1,
    "profiles": 1,
    "roles": 1,
    "secrets": 0,
}
NOTHING = dict.fromkeys(ONE_OF_EACH, 0)
THREE_NODES = ONE_OF_EACH | {"instances": 3, "volumes": 3, "secrets": 1}


def tags_of(thing: dict) -> dict[str, str]:
    """Return the tags of a thing as AWS describes it."""
    return {tag["Key"]: tag["Value"] for tag in thing.get("Tags", thing.get("TagList", []))}
