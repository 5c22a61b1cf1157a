"""What tests of launch, sweep and policy start, and how they look at what is there."""

from __future__ import annotations

from dataclasses import replace

from tests.support.ubuntu_images import add_image
from toolkit.cloud.aws.account import AwsAccount, Identity
from toolkit.cloud.aws.machine_image import MachineImage, find_machine_image
from toolkit.cloud.aws.names import RUN_TAG
from toolkit.cloud.aws.network import Zone
from toolkit.cloud.aws.policy import node_policy
from toolkit.cloud.launch import LaunchRequest

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
    return find_machine_image(account, AMI)


def zones(account: AwsAccount) -> tuple[Zone, ...]:
    """Return the default subnets of the region."""
    subnets = account.client("ec2").describe_subnets(
        Filters=[{"Name": "default-for-az", "Values": ["true"]}]
    )["Subnets"]
    found = [Zone(each["AvailabilityZone"], each["SubnetId"], each["VpcId"]) for each in subnets]
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


def living(account: AwsAccount, promotion: str = ID) -> dict[str, list]:
    """Return all that is there of a promotion, asked for plainly: not as the sweep does."""
    ec2, iam, ssm = (account.client(name) for name in ("ec2", "iam", "ssm"))
    tagged = [{"Name": f"tag:{RUN_TAG}", "Values": [promotion]}]
    reservations = ec2.describe_instances(Filters=tagged)["Reservations"]
    return {
        "instances": [
            instance
            for each in reservations
            for instance in each["Instances"]
            if instance["State"]["Name"] != "terminated"
        ],
        "volumes": ec2.describe_volumes(Filters=tagged)["Volumes"],
        "groups": [
            each
            for each in ec2.describe_security_groups()["SecurityGroups"]
            if promotion in each["GroupName"]
        ],
        "profiles": [
            each
            for each in iam.list_instance_profiles()["InstanceProfiles"]
            if promotion in each["InstanceProfileName"]
        ],
        "roles": [each for each in iam.list_roles()["Roles"] if promotion in each["RoleName"]],
        "secrets": [
            each for each in ssm.describe_parameters()["Parameters"] if promotion in each["Name"]
        ],
    }


def counts(account: AwsAccount, promotion: str = ID) -> dict[str, int]:
    """Return how many there are of each."""
    return {kind: len(found) for kind, found in living(account, promotion).items()}


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
