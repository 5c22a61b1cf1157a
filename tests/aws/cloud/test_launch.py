"""Launching on moto's server, and through one that refuses where moto does not."""

from __future__ import annotations

import base64
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from tests.support.aws_proxy import denial, refusal
from tests.support.clock import FastClock
from tests.support.launches import (
    AMI,
    ID,
    LAUNCH,
    NOTHING,
    ONE_OF_EACH,
    OTHER_ID,
    SCRIPT,
    THREE_NODES,
    TYPES,
    counts,
    launch,
    living,
    order,
    sweep,
    tags_of,
    zones,
)
from toolkit.cloud.aws.account import AccessDeniedError, AwsError, CapacityError, QuotaError
from toolkit.cloud.aws.instance_profile import ExistingProfile
from toolkit.cloud.aws.names import resource_name, spark_secret_name
from toolkit.cloud.launch import ROLE_POLICY
from toolkit.cloud.sweep import find
from toolkit.errors import JobError

NAME = resource_name(ID)
TAGS = {
    "Name": f"fruits-toolkit {ID}",
    "toolkit:run": ID,
    "toolkit:owner": "ann",
    "toolkit:region": "eu-west-1",
}
TWO_NODES = THREE_NODES | {"instances": 2, "volumes": 2}
NO_CAPACITY = "InsufficientInstanceCapacity"


class KilledError(Exception):
    """Stands for the end of the process."""


def test_instance_is_what_was_asked_for(account):
    launched = launch(account, order(account))

    (instance,) = living(account, "instances")
    assert launched.instance_ids == (instance["InstanceId"],)
    assert not launched.adopted
    assert not launched.spot
    assert (launched.zone, launched.instance_type) == (zones(account)[0].name, TYPES[0])
    assert instance["ImageId"] == AMI
    assert instance["InstanceType"] == TYPES[0]
    assert instance["SubnetId"] == zones(account)[0].subnet
    assert tags_of(instance) == TAGS
    assert "KeyName" not in instance
    assert [group["GroupName"] for group in instance["SecurityGroups"]] == [NAME]
    assert instance["IamInstanceProfile"]["Arn"].endswith(
        f":instance-profile/fruits-toolkit/{NAME}"
    )
    options = instance["MetadataOptions"]
    assert options["HttpEndpoint"] == "enabled"
    assert options["HttpTokens"] == "required"
    assert options["HttpPutResponseHopLimit"] == 1
    assert attribute(account, instance, "instanceInitiatedShutdownBehavior") == "terminate"


def test_user_data_arrives_byte_for_byte(account):
    launch(account, order(account))
    (instance,) = living(account, "instances")
    assert base64.b64decode(attribute(account, instance, "userData")) == SCRIPT.encode()


def test_disk_is_encrypted_and_goes_with_the_instance(account):
    launch(account, order(account, volume_gib=48))
    (instance,) = living(account, "instances")
    (volume,) = living(account, "volumes")
    (disk,) = instance["BlockDeviceMappings"]
    assert disk["DeviceName"] == instance["RootDeviceName"]
    assert disk["Ebs"]["VolumeId"] == volume["VolumeId"]
    assert disk["Ebs"]["DeleteOnTermination"]
    assert (volume["Size"], volume["VolumeType"], volume["Encrypted"]) == (48, "gp3", True)
    assert tags_of(volume) == TAGS


def test_group_of_one_node_lets_nobody_in_and_everything_out(account):
    launch(account, order(account))
    (group,) = living(account, "groups")
    assert group["IpPermissions"] == []
    (way_out,) = group["IpPermissionsEgress"]
    assert way_out["IpProtocol"] == "-1"
    assert way_out["IpRanges"] == [{"CidrIp": "0.0.0.0/0"}]
    assert tags_of(group) == TAGS


def test_role_holds_the_nodes_policy_and_nothing_else(account):
    request = order(account)
    launch(account, request)
    iam = account.client("iam")
    role = iam.get_role(RoleName=NAME)["Role"]
    assert role["Path"] == "/fruits-toolkit/"
    assert tags_of(role) == TAGS
    (trusted,) = role["AssumeRolePolicyDocument"]["Statement"]
    assert trusted["Principal"] == {"Service": "ec2.amazonaws.com"}
    assert iam.list_role_policies(RoleName=NAME)["PolicyNames"] == [ROLE_POLICY]
    held = iam.get_role_policy(RoleName=NAME, PolicyName=ROLE_POLICY)["PolicyDocument"]
    assert held == json.loads(request.policy.to_json())
    assert iam.list_attached_role_policies(RoleName=NAME)["AttachedPolicies"] == []
    profile = iam.get_instance_profile(InstanceProfileName=NAME)["InstanceProfile"]
    assert [each["RoleName"] for each in profile["Roles"]] == [NAME]
    assert tags_of(profile) == TAGS


def test_one_node_has_no_secret(account):
    launch(account, order(account))
    assert counts(account) == ONE_OF_EACH


def test_several_nodes_share_a_zone_a_group_and_a_secret(account):
    launched = launch(account, order(account, nodes=3))

    assert counts(account) == THREE_NODES
    instances = living(account, "instances")
    assert {each["Placement"]["AvailabilityZone"] for each in instances} == {launched.zone}
    by_index = sorted(instances, key=lambda each: each["AmiLaunchIndex"])
    assert launched.instance_ids == tuple(each["InstanceId"] for each in by_index)
    (group,) = living(account, "groups")
    (rule,) = group["IpPermissions"]
    assert rule["IpProtocol"] == "-1"
    assert [pair["GroupId"] for pair in rule["UserIdGroupPairs"]] == [group["GroupId"]]
    assert not rule["IpRanges"]
    assert not rule.get("Ipv6Ranges")


def test_secret_is_encrypted_tagged_and_told_to_nobody(account):
    said = []
    launch(account, order(account, nodes=2), say=said.append)
    ssm = account.client("ssm")
    name = spark_secret_name(ID)
    kept = ssm.get_parameter(Name=name, WithDecryption=True)["Parameter"]
    assert kept["Type"] == "SecureString"
    assert len(kept["Value"]) >= 43  # 256 bits in base64
    marks = ssm.list_tags_for_resource(ResourceType="Parameter", ResourceId=name)
    assert tags_of(marks) == TAGS
    (first, _) = living(account, "instances")
    assert kept["Value"].encode() not in base64.b64decode(attribute(account, first, "userData"))
    assert kept["Value"] not in "\n".join(said)


def test_two_secrets_differ(account):
    values = []
    for promotion in (ID, OTHER_ID):
        launch(account, order(account, promotion, nodes=2))
        name = spark_secret_name(promotion)
        answer = account.client("ssm").get_parameter(Name=name, WithDecryption=True)
        values.append(answer["Parameter"]["Value"])
    assert values[0] != values[1]


def test_spot_is_asked_for_once_and_ends_when_it_is_taken_away(front, moto):
    launched = launch(moto.account(), order(moto.account(), spot=True))
    assert launched.spot
    asked = front.asked[-1].parameters
    assert asked["Action"] == "RunInstances"
    assert asked["InstanceMarketOptions.MarketType"] == "spot"
    assert asked["InstanceMarketOptions.SpotOptions.SpotInstanceType"] == "one-time"
    assert asked["InstanceMarketOptions.SpotOptions.InstanceInterruptionBehavior"] == "terminate"
    assert "InstanceMarketOptions.SpotOptions.MaxPrice" not in asked


def test_profile_of_somebody_else_is_used_and_nothing_made_beside_it(account):
    iam = account.client("iam")
    iam.create_role(RoleName="theirs", AssumeRolePolicyDocument="{}")
    arn = iam.create_instance_profile(InstanceProfileName="theirs")["InstanceProfile"]["Arn"]
    iam.add_role_to_instance_profile(InstanceProfileName="theirs", RoleName="theirs")
    existing = ExistingProfile(arn, iam.get_role(RoleName="theirs")["Role"]["Arn"])

    launch(account, order(account, existing=existing))

    (instance,) = living(account, "instances")
    assert instance["IamInstanceProfile"]["Arn"] == arn
    assert counts(account) == ONE_OF_EACH | {"profiles": 0, "roles": 0}
    sweep(account)
    assert iam.get_instance_profile(InstanceProfileName="theirs")


def test_owner_that_no_tag_can_hold_is_spelt_differently(account):
    launch(account, replace(order(account), owner="ann,smith;#1"))
    assert tags_of(living(account, "roles")[0] | role_tags(account)) == TAGS | {
        "toolkit:owner": "ann_smith__1"
    }


def test_launching_again_finds_the_instance_that_runs(front, moto):
    account = moto.account()
    first = launch(account, order(account, nodes=3))
    written = front.names(writing=True)
    again = launch(account, order(account, nodes=3))
    assert again.adopted
    assert replace(again, adopted=False) == first
    assert front.names(writing=True) == written
    assert counts(account) == THREE_NODES


def test_instances_of_another_number_are_left_to_the_sweep(account):
    launch(account, order(account, nodes=2))
    with pytest.raises(JobError, match="not the 1 that it needs") as caught:
        launch(account, order(account))
    assert all(each in caught.value.message for each in ids(account))
    assert f"toolkit sweep {ID}" in caught.value.remedy


# --- no capacity ---


def test_next_zone_is_tried_when_one_has_no_machine(front, moto):
    account = moto.account()
    first, second, *_ = zones(account)
    front.rule = none_in(first.subnet)
    said = []
    launched = launch(account, order(account), say=said.append)
    assert (launched.zone, launched.instance_type) == (second.name, TYPES[0])
    assert said[-3:] == [
        f"1 x {TYPES[0]} in {first.name}",
        f"None there: {NO_CAPACITY}",
        f"1 x {TYPES[0]} in {second.name}",
    ]
    assert counts(account) == ONE_OF_EACH


@pytest.mark.parametrize("code", [NO_CAPACITY, "Unsupported", "SpotMaxPriceTooLow"])
def test_next_type_is_tried_when_no_zone_has_the_first(front, moto, code):
    account = moto.account()
    front.rule = lambda asked: (
        refusal(asked, code, "No.") if asked.parameters.get("InstanceType") == TYPES[0] else None
    )
    launched = launch(account, order(account))
    assert (launched.zone, launched.instance_type) == (zones(account)[0].name, TYPES[1])
    assert front.count("ec2:RunInstances") == len(zones(account)) + 1


def test_when_there_is_nothing_anywhere_all_answers_are_told(front, moto, direct):
    account = moto.account()
    front.rule = none_in(*(zone.subnet for zone in zones(direct)))
    with pytest.raises(CapacityError) as caught:
        launch(account, order(account))
    for kind in TYPES:
        for zone in zones(direct):
            assert f"{kind} in {zone.name}: {NO_CAPACITY}" in caught.value.message
    assert caught.value.code == NO_CAPACITY
    sweep(account)
    assert counts(account) == NOTHING


@pytest.mark.parametrize("code", ["VcpuLimitExceeded", "MaxSpotInstanceCountExceeded"])
def test_quota_is_no_matter_of_zones(front, moto, code):
    account = moto.account()
    front.rule = lambda asked: (
        refusal(asked, code, "You have requested more vCPU capacity than your limit of 5 allows.")
        if asked.action == "RunInstances"
        else None
    )
    with pytest.raises(QuotaError, match="limit of 5"):
        launch(account, order(account))
    assert front.count("ec2:RunInstances") == 1


def test_image_that_is_gone_is_an_error_that_names_it(front, moto):
    account = moto.account()
    front.rule = lambda asked: (
        refusal(asked, "InvalidAMIID.NotFound", f"The image id '[{AMI}]' does not exist")
        if asked.action == "RunInstances"
        else None
    )
    with pytest.raises(AwsError, match=AMI) as caught:
        launch(account, order(account))
    assert caught.value.code == "InvalidAMIID.NotFound"
    assert front.count("ec2:RunInstances") == 1


# --- AWS does not agree with itself ---


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "InvalidParameterValue",
            f"Value ({NAME}) for parameter iamInstanceProfile.name is invalid.",
        ),
        ("InvalidParameterValue", "Invalid IAM Instance Profile name"),
        ("InvalidParameterValue", f"IAM Instance Profile {NAME} has no associated IAM Roles"),
        ("InvalidGroup.NotFound", "The security group 'sg-1' does not exist"),
    ],
)
def test_ec2_is_given_time_to_see_what_is_new(front, moto, code, message):
    front.rule = first(2, "RunInstances", code, message)
    account = moto.account()
    launch(account, order(account))
    assert front.count("ec2:RunInstances") == 3
    assert counts(account) == ONE_OF_EACH


def test_but_not_for_ever(front, moto):
    clock = FastClock(at_least=30)
    front.rule = first(99, "RunInstances", "InvalidParameterValue", "Invalid IAM Instance Profile")
    account = moto.account()
    with pytest.raises(AwsError, match="Invalid IAM Instance Profile"):
        launch(account, order(account), clock=clock.clock)
    assert 120 <= clock.time < 180
    assert front.count("ec2:RunInstances") == 5


def test_other_invalid_parameters_are_not_waited_for(front, moto):
    front.rule = first(99, "RunInstances", "InvalidParameterValue", "Invalid value for keyName")
    account = moto.account()
    with pytest.raises(AwsError, match="keyName"):
        launch(account, order(account))
    assert front.count("ec2:RunInstances") == 1


def test_profile_that_was_made_long_ago_is_not_waited_for(front, moto):
    front.rule = first(99, "RunInstances", "InvalidParameterValue", "Invalid IAM Instance Profile")
    account = moto.account()
    existing = ExistingProfile("arn:aws:iam::123456789012:instance-profile/theirs", "")
    with pytest.raises(AwsError, match="Invalid IAM Instance Profile"):
        launch(account, order(account, existing=existing))
    assert front.count("ec2:RunInstances") == 1


@pytest.mark.parametrize(
    ("action", "code"),
    [
        ("PutRolePolicy", "NoSuchEntity"),
        ("AddRoleToInstanceProfile", "NoSuchEntity"),
        ("AuthorizeSecurityGroupIngress", "InvalidGroup.NotFound"),
    ],
)
def test_what_was_made_a_moment_ago_is_given_time(front, moto, action, code):
    front.rule = first(2, action, code, "There is none.")
    account = moto.account()
    launch(account, order(account, nodes=3))
    assert [each.action for each in front.asked].count(action) == 3
    assert counts(account) == THREE_NODES


# --- client tokens ---


def test_token_is_the_same_for_the_same_and_another_for_another_zone(front, moto, direct):
    account = moto.account()
    front.rule = none_in(*(zone.subnet for zone in zones(direct)))
    for _ in range(2):
        with pytest.raises(CapacityError):
            launch(account, order(account))
    tokens = [each.parameters.get("ClientToken") for each in front.asked]
    tokens = [token for token in tokens if token]
    once, again = tokens[: len(tokens) // 2], tokens[len(tokens) // 2 :]
    assert once == again
    assert len(set(once)) == len(once) == len(TYPES) * len(zones(direct))
    assert {len(token) for token in once} == {64}


def test_two_promotions_have_different_tokens(front, moto):
    account = moto.account()
    for promotion in (ID, OTHER_ID):
        launch(account, order(account, promotion))
    tokens = {each.parameters.get("ClientToken") for each in front.asked} - {None}
    assert len(tokens) == 2


def test_token_of_an_instance_that_has_ended_is_followed_by_another(front, moto):
    message = "The client token you have provided is associated with a terminated instance."
    front.rule = first(2, "RunInstances", "IdempotentInstanceTerminated", message)
    account = moto.account()
    launch(account, order(account))
    tokens = [each.parameters.get("ClientToken") for each in front.asked]
    assert len({token for token in tokens if token}) == 3
    assert counts(account) == ONE_OF_EACH


# --- interrupted ---


def test_killed_before_any_step_and_called_again_there_is_one_of_each(account, moto):
    steps = []
    launch(account, order(account, nodes=2), say=steps.append)
    for number in range(len(steps)):
        moto.reset()
        said = []

        def until(text: str, said: list[str] = said, last: int = number) -> None:
            if len(said) == last:
                raise KilledError
            said.append(text)

        with pytest.raises(KilledError):
            launch(account, order(account, nodes=2), say=until)
        assert said == steps[:number]
        assert find(account, ID) == [] or number > 1
        launch(account, order(account, nodes=2))
        assert counts(account) == TWO_NODES


@pytest.mark.parametrize("after", [False, True], ids=["nothing done", "done and not told"])
def test_each_request_may_fail_and_nothing_is_left(front, moto, direct, after):
    account = moto.account()
    launch(account, order(direct, nodes=2))
    requests = len(front.asked)
    order_of_names = []
    for number in range(requests):
        moto.reset()
        request = order(direct, nodes=2)
        front.asked.clear()
        front.rule = lambda asked, number=number: (
            denial(asked, after=after) if len(front.asked) > number else None
        )
        with pytest.raises(AccessDeniedError) as caught:
            launch(account, request)
        order_of_names.append(caught.value.action)
        front.rule = lambda _: None
        if number % 2:  # swept as it is, or gone on with
            launch(account, request)
            assert counts(direct) == TWO_NODES
        else:
            sweep(account)
            assert counts(direct) == NOTHING
    assert order_of_names == [*LAUNCH]


def test_instance_of_a_lost_reply_is_found_when_called_again(front, moto, direct):
    account = moto.account()
    front.rule = lambda asked: denial(asked, after=True) if asked.action == "RunInstances" else None
    with pytest.raises(AccessDeniedError):
        launch(account, order(direct))
    front.rule = lambda _: None
    assert launch(account, order(direct)).adopted
    assert counts(direct) == ONE_OF_EACH


def test_resumed_after_a_sweep_it_starts_anew(account):
    first = launch(account, order(account))
    sweep(account)
    second = launch(account, order(account))
    assert not second.adopted
    assert set(first.instance_ids).isdisjoint(second.instance_ids)


# --- others ---


def test_two_promotions_at_once_do_not_meet(account):
    promotions = [ID, OTHER_ID]
    requests = [order(account, each, nodes=3) for each in promotions]
    with ThreadPoolExecutor(2) as pool:
        launched = list(pool.map(lambda request: launch(account, request), requests))
    assert set(launched[0].instance_ids).isdisjoint(launched[1].instance_ids)
    for promotion in promotions:
        assert counts(account, promotion) == THREE_NODES
    sweep(account)
    assert counts(account, ID) == NOTHING
    assert counts(account, OTHER_ID) == THREE_NODES
    assert {each.promotion for each in find(account)} == {OTHER_ID}


def test_group_of_somebody_else_is_not_taken(account):
    vpc = zones(account)[0].vpc
    account.client("ec2").create_security_group(GroupName=NAME, Description="-", VpcId=vpc)
    with pytest.raises(JobError, match=r"security group .* has not made"):
        launch(account, order(account))
    assert counts(account) == NOTHING | {"groups": 1}


def test_role_of_somebody_else_is_not_taken(account):
    account.client("iam").create_role(RoleName=NAME, AssumeRolePolicyDocument="{}")
    with pytest.raises(JobError, match=r"role .* has not made"):
        launch(account, order(account))
    assert account.client("iam").list_role_policies(RoleName=NAME)["PolicyNames"] == []


def test_profile_of_somebody_else_is_not_taken(account):
    account.client("iam").create_instance_profile(InstanceProfileName=NAME)
    with pytest.raises(JobError, match=r"instance profile .* has not made"):
        launch(account, order(account))


def test_other_role_in_the_profile_is_not_used(account):
    launch(account, order(account))
    iam = account.client("iam")
    iam.remove_role_from_instance_profile(InstanceProfileName=NAME, RoleName=NAME)
    iam.create_role(RoleName="admin", AssumeRolePolicyDocument="{}")
    iam.add_role_to_instance_profile(InstanceProfileName=NAME, RoleName="admin")
    account.client("ec2").terminate_instances(InstanceIds=ids(account))
    with pytest.raises(JobError, match="admin"):
        launch(account, order(account))
    assert counts(account)["instances"] == 0


def test_group_that_somebody_has_opened_is_not_used(account):
    with pytest.raises(KilledError):
        launch(account, order(account), say=killed_at(f"Role {NAME}"))
    (group,) = living(account, "groups")
    account.client("ec2").authorize_security_group_ingress(
        GroupId=group["GroupId"], IpProtocol="tcp", FromPort=22, ToPort=22, CidrIp="0.0.0.0/0"
    )
    with pytest.raises(JobError, match="lets others in"):
        launch(account, order(account))
    assert counts(account)["instances"] == 0


# --- what the tests say more than once ---


def attribute(account, instance: dict, name: str) -> str:
    answer = account.client("ec2").describe_instance_attribute(
        InstanceId=instance["InstanceId"], Attribute=name
    )
    return answer[name[0].upper() + name[1:]]["Value"]


def role_tags(account) -> dict:
    return {"Tags": account.client("iam").list_role_tags(RoleName=NAME)["Tags"]}


def ids(account) -> list[str]:
    return [each["InstanceId"] for each in living(account, "instances")]


def none_in(*subnets: str):
    return lambda asked: (
        refusal(asked, NO_CAPACITY, "We currently do not have sufficient capacity there.")
        if asked.action == "RunInstances" and asked.parameters["SubnetId"] in subnets
        else None
    )


def first(times: int, action: str, code: str, message: str):
    left = [times]

    def rule(asked):
        if asked.action != action or not left[0]:
            return None
        left[0] -= 1
        return refusal(asked, code, message)

    return rule


def killed_at(step: str):
    def say(text: str) -> None:
        if text == step:
            raise KilledError

    return say
