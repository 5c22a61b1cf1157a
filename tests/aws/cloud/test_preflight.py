"""The preflight, on moto's server, and on one that answers as S3 does of a bucket elsewhere."""

from __future__ import annotations

import re
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.aws_proxy import leading_through, refusal
from tests.support.in_process import HttpReply, HttpRequest, serving
from tests.support.moto import AMI, REGION
from tests.support.ubuntu_images import add_image, set_parameter
from toolkit.cloud.aws.instance_profile import ExistingProfile
from toolkit.cloud.aws.network import Zone
from toolkit.cloud.preflight import COLUMNS, preflight, rows
from toolkit.errors import RequestError
from toolkit.profiles import Profile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ELSEWHERE = "eu-central-1"
BUCKET = "orchard"
PROBE = "toolkit/promotions/preflight-probe"
TYPE = "c7i.2xlarge"
TITLES = [
    "account",
    "bucket",
    "rights in the bucket",
    "instance type",
    "quota",
    "machine image",
    "network",
    "instance profile",
    "right to start",
]


@pytest.fixture
def aws(moto):
    """Give an account in which a promotion can begin: bucket, Ubuntu, a way to the internet."""
    moto.make_bucket(BUCKET, REGION)
    moto.equip(REGION)
    return moto


def profile_of(*, s3: dict[str, Any] | None = None, **aws: Any) -> Profile:
    bucket = {"endpoint": "aws", "bucket": BUCKET, "region": REGION} | (s3 or {})
    return Profile.model_validate({"name": "aws", "s3": bucket, "aws": aws})


def check(report, title: str):
    (found,) = [each for each in report.checks if each.title == title]
    return found


def only_problem(report, title: str) -> str:
    """Return the one problem of a report, which belongs to the check named, with its remedy."""
    assert report.facts is None
    assert [each.title for each in report.checks if each.problems] == [title]
    (problem,) = report.problems
    return f"{problem.what} {problem.remedy}"


def keys(moto, region: str = REGION) -> list[str]:
    listed = moto.account().client("s3", region=region).list_objects_v2(Bucket=BUCKET)
    return [each["Key"] for each in listed.get("Contents", [])]


def deny(*actions: str) -> dict:
    everything = {"Effect": "Allow", "Action": "*", "Resource": "*"}
    denied = {"Effect": "Deny", "Action": list(actions), "Resource": "*"}
    return {"Version": "2012-10-17", "Statement": [everything, denied]}


# --- all right ---


def test_account_in_order_has_facts_and_no_problem(aws) -> None:
    report = preflight(profile_of())
    assert report.problems == ()
    assert [each.title for each in report.checks] == TITLES
    facts = report.require()
    assert facts.identity.account == "123456789012"
    assert (facts.region, facts.bucket, facts.bucket_region) == (REGION, BUCKET, REGION)
    assert (facts.instance_type.name, facts.instance_type.vcpus) == (TYPE, 8)
    assert facts.instance_type.memory_mib == 16384
    assert (facts.image.id, facts.image.root_device) == (AMI, "/dev/sda1")
    subnets = aws.account().client("ec2").describe_subnets()["Subnets"]
    assert facts.zones == tuple(
        Zone(each["AvailabilityZone"], each["SubnetId"], each["VpcId"])
        for each in sorted(subnets, key=lambda each: each["AvailabilityZone"])
    )
    assert facts.existing is None
    assert facts.transfer is None
    assert keys(aws) == []


def test_rows_say_what_was_found_in_order(aws) -> None:
    report = preflight(profile_of())
    table = rows(report)
    assert all(len(row) == len(COLUMNS) for row in table)
    assert [row[0] for row in table if row[0]] == TITLES
    assert ("bucket", "ok", f"{BUCKET} in {REGION}") in table
    assert [row[1] for row in table if row[1] not in {"ok", "note"}] == []


# --- account ---


def test_without_credentials_there_is_one_problem_and_nothing_else_is_looked_at(no_aws) -> None:
    report = preflight(profile_of())
    assert "aws configure" in only_problem(report, "account")
    assert len(report.checks) == 1


def test_credentials_that_expire_meanwhile_are_one_problem(aws, refusing) -> None:
    refusing("ec2", "RequestExpired", "Request has expired.")
    report = preflight(profile_of())
    assert "expired" in only_problem(report, "instance type")
    assert [each.title for each in report.checks if each.skipped] == TITLES[4:]
    assert check(report, "rights in the bucket").found


# --- bucket ---


def test_missing_bucket_is_a_problem_and_its_rights_are_skipped(aws) -> None:
    report = preflight(profile_of(s3={"bucket": "somebodys-orchard"}))
    problem = only_problem(report, "bucket")
    assert "no bucket somebodys-orchard" in problem
    assert f"aws s3 mb s3://somebodys-orchard --region {REGION}" in problem
    assert [each.title for each in report.checks if each.skipped] == ["rights in the bucket"]
    assert check(report, "right to start").found


def test_bucket_that_is_not_on_aws_is_refused(aws) -> None:
    report = preflight(profile_of(s3={"endpoint": "http://127.0.0.1:9000"}))
    assert "--profile aws" in only_problem(report, "bucket")


def test_wrong_region_in_the_profile_is_one_problem_and_instances_follow_the_bucket(moto) -> None:
    moto.make_bucket(BUCKET, ELSEWHERE)
    moto.equip(ELSEWHERE)
    report = preflight(profile_of())
    problem = only_problem(report, "bucket")
    assert f"TOOLKIT_S3__REGION={ELSEWHERE}" in problem
    assert check(report, "network").found.startswith("subnet-")
    assert f"in {ELSEWHERE}a" in check(report, "network").found


@pytest.mark.parametrize("status", [301, 400, 403])
def test_region_of_a_bucket_is_found_from_another(
    aws, s3_in: Callable[[str, int], None], status: int
) -> None:
    s3_in(REGION, status)
    report = preflight(profile_of(s3={"region": "us-west-2"}, region=REGION))
    assert f"TOOLKIT_S3__REGION={REGION}" in only_problem(report, "bucket")
    # It could be written to all the same: each request went to where the bucket is.
    assert check(report, "rights in the bucket").found
    assert keys(aws) == []


@pytest.mark.parametrize("status", [301, 403])
def test_bucket_of_a_server_that_does_not_tell_regions_is_asked_where_it_is(
    aws, s3_in: Callable[..., None], status: int
) -> None:
    s3_in(REGION, status, tells=False)
    report = preflight(profile_of())
    assert report.problems == ()
    assert report.require().bucket_region == REGION


@pytest.mark.parametrize(
    ("action", "told"),
    [
        ("s3:ListBucket", "list"),
        ("s3:PutObject", "write"),
        ("s3:GetObject", "read"),
        ("s3:DeleteObject", "delete"),
    ],
)
def test_missing_right_in_the_bucket_is_named_and_no_probe_stays(
    aws, action: str, told: str
) -> None:
    aws.sign_in("alice", deny(action))
    aws.enforce()
    report = preflight(profile_of())
    problem = only_problem(report, "rights in the bucket")
    assert f"Could not {told}" in problem
    assert action in problem
    aws.enforce(on=False)
    assert keys(aws) == []


def test_all_rights_missing_in_the_bucket_are_told_at_once(aws) -> None:
    aws.sign_in("alice", deny("s3:ListBucket", "s3:PutObject", "s3:GetObject", "s3:DeleteObject"))
    aws.enforce()
    report = preflight(profile_of())
    told = " ".join(
        each.what + each.remedy for each in check(report, "rights in the bucket").problems
    )
    for action in ("s3:ListBucket", "s3:PutObject", "s3:GetObject", "s3:DeleteObject"):
        assert action in told


def test_probe_that_a_killed_preflight_has_left_is_removed(aws) -> None:
    aws.account().client("s3").put_object(Bucket=BUCKET, Key=PROBE, Body=b"")
    preflight(profile_of())
    assert keys(aws) == []


def test_probe_does_not_stay_when_a_later_check_fails(aws) -> None:
    report = preflight(profile_of(ami="ami-0000000b", subnet="subnet-0000000b"))
    assert len(report.problems) == 2
    assert keys(aws) == []


# --- regions ---


def test_instances_in_another_region_are_refused_with_the_price_of_the_way(aws) -> None:
    aws.equip(ELSEWHERE)
    report = preflight(profile_of(region=ELSEWHERE))
    problem = only_problem(report, "regions")
    assert "0.02 US dollars (built-in table" in problem
    assert "--allow-cross-region" in problem
    assert check(report, "machine image").found  # in the other region


def test_instances_in_another_region_are_allowed_to_who_will_pay(aws) -> None:
    aws.equip(ELSEWHERE)
    report = preflight(profile_of(region=ELSEWHERE), allow_cross_region=True)
    facts = report.require()
    assert (facts.bucket_region, facts.region) == (REGION, ELSEWHERE)
    assert facts.transfer.usd == 0.02
    assert "0.02 US dollars" in check(report, "regions").notes[0]


# --- instance type ---


def test_unknown_instance_type_is_refused_and_its_quota_skipped(aws) -> None:
    report = preflight(profile_of(instance_type="c7i.3xlarge"))
    assert f"{REGION} has no instance type c7i.3xlarge" in only_problem(report, "instance type")
    assert check(report, "quota").skipped
    assert check(report, "network").found


def test_arm_is_refused(aws) -> None:
    report = preflight(profile_of(instance_type="c7g.2xlarge"))
    assert "c7g.2xlarge is of arm64" in only_problem(report, "instance type")


def test_type_that_no_zone_offers_is_one_problem(aws, monkeypatch) -> None:
    from moto.ec2.models.instance_types import INSTANCE_TYPE_OFFERINGS

    offered = INSTANCE_TYPE_OFFERINGS["availability-zone"]
    fewer = [each for each in offered[REGION] if each["InstanceType"] != TYPE]
    monkeypatch.setitem(offered, REGION, fewer)
    assert f"No zone of {REGION} offers" in only_problem(preflight(profile_of()), "instance type")


# --- quota ---


@pytest.fixture
def quota(monkeypatch) -> Callable[[dict[str, float]], None]:
    """Return a function that sets quotas of EC2 by their codes; moto has none of its own."""
    from moto.servicequotas.models import ServiceQuotasBackend

    def set_to(values: dict[str, float]) -> None:
        def answer(self, service_code: str, quota_code: str) -> dict[str, Any]:
            assert service_code == "ec2"
            return {"QuotaCode": quota_code, "Value": values[quota_code]}

        monkeypatch.setattr(ServiceQuotasBackend, "get_service_quota", answer)

    return set_to


def run_instance(aws, instance_type: str, **options: Any) -> None:
    aws.account().client("ec2").run_instances(
        ImageId=AMI, InstanceType=instance_type, MinCount=1, MaxCount=1, **options
    )


def test_quota_counts_what_runs_of_the_same_market(aws, quota) -> None:
    quota({"L-1216C47A": 32.0})
    run_instance(aws, "m5.large")  # 2
    run_instance(aws, "t3.xlarge")  # 4
    run_instance(aws, "g4dn.xlarge")  # has a quota of its own
    run_instance(aws, "m5.large", InstanceMarketOptions={"MarketType": "spot"})
    facts = preflight(profile_of(nodes=3)).require()
    assert facts.quota_left == 32 - 6


def test_stopped_instances_do_not_count(aws, quota) -> None:
    quota({"L-1216C47A": 8.0})
    run_instance(aws, "m5.large")
    ec2 = aws.account().client("ec2")
    (reservation,) = ec2.describe_instances()["Reservations"]
    ec2.terminate_instances(InstanceIds=[reservation["Instances"][0]["InstanceId"]])
    assert preflight(profile_of()).require().quota_left == 8


def test_quota_too_small_for_what_runs_and_is_asked_for_says_what_to_ask_for(aws, quota) -> None:
    quota({"L-1216C47A": 16.0})
    run_instance(aws, "m5.large")
    problem = only_problem(preflight(profile_of(nodes=2)), "quota")
    assert "2 x c7i.2xlarge need 16 vCPUs, and of 16 standard on-demand vCPUs" in problem
    assert "--quota-code L-1216C47A --desired-value 18" in problem


def test_spot_has_a_quota_of_its_own(aws, quota) -> None:
    quota({"L-1216C47A": 0.0, "L-34B43A08": 5.0})
    problem = only_problem(preflight(profile_of(spot=True)), "quota")
    assert "5 standard spot vCPUs" in problem
    quota({"L-1216C47A": 0.0, "L-34B43A08": 8.0})
    assert preflight(profile_of(spot=True)).require().quota_left == 8


def test_quota_that_may_not_be_asked_is_a_note(aws) -> None:
    aws.sign_in("alice", deny("servicequotas:GetServiceQuota"))
    aws.enforce()
    report = preflight(profile_of())
    assert report.require().quota_left is None
    assert "GetServiceQuota is not allowed" in check(report, "quota").notes[0]


# --- machine image ---


@pytest.mark.parametrize(
    ("fields", "settings", "told"),
    [
        ({"architecture": "arm64"}, {}, "is for arm64"),
        ({"state": "deregistered"}, {}, "is deregistered"),
        ({"root_device_type": "instance-store"}, {}, "does not boot from an EBS volume"),
        ({}, {"volume_gib": 14}, "TOOLKIT_AWS__VOLUME_GIB"),
    ],
)
def test_image_that_will_not_do_is_refused(aws, fields, settings, told: str) -> None:
    add_image(REGION, "ami-0000000a", **fields)
    report = preflight(profile_of(ami="ami-0000000a", **settings))
    assert told in only_problem(report, "machine image")


def test_image_that_a_search_has_found_is_noted(moto) -> None:
    moto.make_bucket(BUCKET, REGION)
    moto.equip(REGION)
    set_parameter(REGION, "ami-0000000f")  # gone
    report = preflight(profile_of())
    assert report.require().image.id == AMI
    assert "ami-0000000f" in check(report, "machine image").notes[0]


def test_missing_image_is_a_problem(aws) -> None:
    report = preflight(profile_of(ami="ami-0000000b"))
    assert "no machine image ami-0000000b" in only_problem(report, "machine image")


# --- network ---


@pytest.fixture
def subnet(aws) -> str:
    """Return a subnet of 16 addresses in the first zone, of a VPC without a way out."""
    ec2 = aws.account().client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    made = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.0.0/28", AvailabilityZone=f"{REGION}a")
    return made["Subnet"]["SubnetId"]


def lead_out(aws, subnet: str, **target: str) -> None:
    """Give a subnet a route table of its own, and there a route to everywhere."""
    ec2 = aws.account().client("ec2")
    (described,) = ec2.describe_subnets(SubnetIds=[subnet])["Subnets"]
    table = ec2.create_route_table(VpcId=described["VpcId"])["RouteTable"]["RouteTableId"]
    ec2.associate_route_table(RouteTableId=table, SubnetId=subnet)
    ec2.create_route(RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", **target)


def gateway(aws, subnet: str) -> str:
    ec2 = aws.account().client("ec2")
    (described,) = ec2.describe_subnets(SubnetIds=[subnet])["Subnets"]
    made = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    ec2.attach_internet_gateway(InternetGatewayId=made, VpcId=described["VpcId"])
    return made


def test_missing_subnet_is_a_problem(aws) -> None:
    report = preflight(profile_of(subnet="subnet-0000000b"))
    assert "no subnet subnet-0000000b in eu-west-1" in only_problem(report, "network")


def test_region_without_a_default_vpc_asks_for_a_subnet(aws) -> None:
    ec2 = aws.account().client("ec2")
    for each in ec2.describe_subnets()["Subnets"]:
        ec2.delete_subnet(SubnetId=each["SubnetId"])
    problem = only_problem(preflight(profile_of()), "network")
    assert "create-default-vpc" in problem
    assert "aws.subnet" in problem


def test_what_is_wrong_with_all_subnets_is_one_problem(moto) -> None:
    moto.make_bucket(BUCKET, REGION)
    set_parameter(REGION, add_image(REGION, AMI))
    problem = only_problem(preflight(profile_of()), "network")
    assert problem.count("no route to the internet") == 1
    for zone in "abc":
        assert f"{REGION}{zone}" in problem


def test_zones_that_do_not_offer_the_type_are_left_out(aws, monkeypatch) -> None:
    from moto.ec2.models.instance_types import INSTANCE_TYPE_OFFERINGS

    offered = INSTANCE_TYPE_OFFERINGS["availability-zone"]
    only = [{"InstanceType": TYPE, "Location": f"{REGION}b"}]
    monkeypatch.setitem(offered, REGION, only)
    facts = preflight(profile_of()).require()
    assert [zone.name for zone in facts.zones] == [f"{REGION}b"]


def test_subnet_in_a_zone_that_does_not_offer_the_type_is_refused(
    aws, subnet: str, monkeypatch
) -> None:
    from moto.ec2.models.instance_types import INSTANCE_TYPE_OFFERINGS

    offered = INSTANCE_TYPE_OFFERINGS["availability-zone"]
    only = [{"InstanceType": TYPE, "Location": f"{REGION}b"}]
    monkeypatch.setitem(offered, REGION, only)
    problem = only_problem(preflight(profile_of(subnet=subnet)), "network")
    assert f"{subnet} in {REGION}a: the zone does not offer {TYPE}" in problem


def test_subnet_without_enough_addresses_is_refused(aws, subnet: str) -> None:
    problem = only_problem(preflight(profile_of(subnet=subnet, nodes=12)), "network")
    assert "11 addresses are left for 12 nodes" in problem


def test_subnet_without_a_way_out_is_refused_even_if_its_neighbour_has_one(
    aws, subnet: str
) -> None:
    ec2 = aws.account().client("ec2")
    (described,) = ec2.describe_subnets(SubnetIds=[subnet])["Subnets"]
    made = ec2.create_subnet(VpcId=described["VpcId"], CidrBlock="10.0.1.0/28")
    neighbour = made["Subnet"]["SubnetId"]
    lead_out(aws, neighbour, GatewayId=gateway(aws, neighbour))
    problem = only_problem(preflight(profile_of(subnet=subnet)), "network")
    assert "no route to the internet" in problem


def test_internet_gateway_takes_public_addresses(aws, subnet: str) -> None:
    lead_out(aws, subnet, GatewayId=gateway(aws, subnet))
    problem = only_problem(preflight(profile_of(subnet=subnet)), "network")
    assert f"--map-public-ip-on-launch --region {REGION} --subnet-id ID" in problem
    ec2 = aws.account().client("ec2")
    ec2.modify_subnet_attribute(SubnetId=subnet, MapPublicIpOnLaunch={"Value": True})
    (zone,) = preflight(profile_of(subnet=subnet)).require().zones
    assert (zone.subnet, zone.name) == (subnet, f"{REGION}a")


def test_nat_gateway_takes_no_public_addresses(aws, subnet: str) -> None:
    ec2 = aws.account().client("ec2")
    address = ec2.allocate_address(Domain="vpc")["AllocationId"]
    nat = ec2.create_nat_gateway(SubnetId=subnet, AllocationId=address)["NatGateway"]
    lead_out(aws, subnet, NatGatewayId=nat["NatGatewayId"])
    report = preflight(profile_of(subnet=subnet))
    assert report.require().zones[0].subnet == subnet
    assert check(report, "network").notes == ()


def test_way_out_that_can_not_be_judged_is_a_note(aws, subnet: str) -> None:
    ec2 = aws.account().client("ec2")
    device = ec2.create_network_interface(SubnetId=subnet)["NetworkInterface"]
    lead_out(aws, subnet, NetworkInterfaceId=device["NetworkInterfaceId"])
    report = preflight(profile_of(subnet=subnet))
    assert report.require().zones[0].subnet == subnet
    assert subnet in check(report, "network").notes[0]


def test_routes_that_may_not_be_seen_are_a_note(aws) -> None:
    aws.sign_in("alice", deny("ec2:DescribeRouteTables"))
    aws.enforce()
    report = preflight(profile_of())
    assert report.require().zones
    assert "can't be told" in check(report, "network").notes[0]


# --- instance profile ---


def test_instance_profile_without_a_role_is_refused_and_with_one_taken(aws) -> None:
    iam = aws.account().client("iam")
    made = iam.create_instance_profile(InstanceProfileName="pickers")["InstanceProfile"]
    report = preflight(profile_of(instance_profile="pickers"))
    problem = only_problem(report, "instance profile")
    assert "pickers has no role" in problem
    assert "add-role-to-instance-profile --instance-profile-name pickers" in problem

    role = iam.create_role(RoleName="picker", AssumeRolePolicyDocument="{}")["Role"]
    iam.add_role_to_instance_profile(InstanceProfileName="pickers", RoleName="picker")
    facts = preflight(profile_of(instance_profile="pickers")).require()
    assert facts.existing == ExistingProfile(made["Arn"], role["Arn"])


def test_missing_instance_profile_is_a_problem(aws) -> None:
    report = preflight(profile_of(instance_profile="pickers"))
    problem = only_problem(report, "instance profile")
    assert "no instance profile pickers" in problem
    assert "TOOLKIT_AWS__INSTANCE_PROFILE" in problem


# --- the right to start ---


def denied(resource: str) -> str:
    """Say what EC2 says since 2023 of who may not start instances."""
    return (
        "You are not authorized to perform this operation. User: arn:aws:iam::123456789012:user/a "
        f"is not authorized to perform: ec2:RunInstances on resource: arn:aws:ec2:{REGION}:"
        f"123456789012:{resource} because no identity-based policy allows the ec2:RunInstances "
        "action. Encoded authorization failure message: 4GIOHlTkIaWHQD0Q0m6XSnuUMCm"
    )


def test_launch_is_tried_with_its_own_arguments_and_starts_nothing(aws) -> None:
    with leading_through(aws) as front:
        report = preflight(profile_of(nodes=2, spot=True, volume_gib=40))
        assert aws.account().client("ec2").describe_instances()["Reservations"] == []
    assert report.problems == ()
    (asked,) = [each.parameters for each in front.asked if each.action == "RunInstances"]
    assert asked["DryRun"] == "true"
    assert (asked["ImageId"], asked["InstanceType"], asked["MaxCount"]) == (AMI, TYPE, "2")
    assert asked["SubnetId"] == report.require().zones[0].subnet
    assert asked["InstanceMarketOptions.MarketType"] == "spot"
    assert asked["MetadataOptions.HttpTokens"] == "required"
    assert asked["BlockDeviceMapping.1.Ebs.VolumeSize"] == "40"
    assert "IamInstanceProfile.Arn" not in asked


def test_launch_that_is_not_allowed_names_the_action(aws) -> None:
    with leading_through(aws) as front:
        front.rule = lambda asked: (
            refusal(asked, "UnauthorizedOperation", denied("instance/*"))
            if asked.action == "RunInstances"
            else None
        )
        report = preflight(profile_of())
    problem = only_problem(report, "right to start")
    assert "ec2:RunInstances is not allowed" in problem
    assert "instance/*" in problem
    assert "4GIOHlTk" not in problem


def test_denial_of_the_default_group_says_nothing_of_a_launch_in_its_own_group(aws) -> None:
    with leading_through(aws) as front:
        front.rule = lambda asked: (
            refusal(asked, "UnauthorizedOperation", denied("security-group/sg-0123456789abcdef0"))
            if asked.action == "RunInstances"
            else None
        )
        report = preflight(profile_of())
    assert report.problems == ()
    assert "without their security group" in check(report, "right to start").found


def test_launch_is_not_tried_with_what_is_wrong_already(aws) -> None:
    with leading_through(aws) as front:
        report = preflight(profile_of(instance_type="c7g.2xlarge"))
    assert check(report, "right to start").skipped
    assert front.count("ec2:RunInstances") == 0


# --- all at once ---


def test_all_problems_are_reported_at_once_each_with_its_remedy(moto) -> None:
    report = preflight(
        profile_of(
            instance_type="c7g.2xlarge",
            ami="ami-0000000b",
            subnet="subnet-0000000b",
            instance_profile="pickers",
        )
    )
    what = [problem.what for problem in report.problems]
    assert len(what) == 5
    for expected, told in zip(
        [f"bucket {BUCKET}", "arm64", "ami-0000000b", "subnet-0000000b", "pickers"],
        what,
        strict=True,
    ):
        assert expected in told
    with pytest.raises(RequestError, match="5 things must be mended first") as raised:
        report.require()
    table = rows(report)
    assert [row[2] for row in table if row[1] == "problem"] == what
    for problem in report.problems:
        assert problem.remedy
        assert f"{problem.what}\n  {problem.remedy}" in raised.value.remedy
        assert table[table.index(row_of(table, problem.what)) + 1] == ("", "", problem.remedy)
    assert ("rights in the bucket", "skipped", "Something else has to be right first.") in table


def row_of(table: list[tuple[str, str, str]], text: str) -> tuple[str, str, str]:
    (found,) = [row for row in table if row[2] == text]
    return found


# --- a server that answers as S3 does ---


@pytest.fixture
def s3_in(aws) -> Iterator[Callable[..., None]]:
    """Return a function that puts S3's regions before moto, which redirects nobody.

    A request that is signed for another region than the bucket's gets the status and, in a header,
    the region; with 403, HeadBucket alone is refused, as to those who may list prefixes only. All
    others go on to moto; ``tells=False`` takes the header from its answers.
    """
    with ExitStack() as exits:

        def serve(region: str, status: int, *, tells: bool = True) -> None:
            url = "http://127.0.0.2"  # a name would have the bucket before it
            told = [("x-amz-bucket-region", region)]

            def answer(request: HttpRequest) -> HttpReply:
                signed = re.search(
                    r"Credential=[^/]+/\d+/([^/]+)/s3", request.headers["Authorization"]
                )
                if status == 403 and request.method == "HEAD":
                    return HttpReply(403, told if tells else [])
                if signed[1] != region:
                    return HttpReply(301 if status == 403 else status, told)
                reply = aws.server(request)
                kept = [each for each in reply.headers if tells or each[0].lower() != told[0][0]]
                return replace(reply, headers=kept)

            exits.enter_context(serving(url, answer))
            aws.environment.setenv("AWS_ENDPOINT_URL_S3", url)

        yield serve
