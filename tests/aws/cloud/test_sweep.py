"""Sweeping what promotions left on moto's server, and through one that refuses as AWS does."""

from __future__ import annotations

import pytest

from tests.support.aws_proxy import Answer, denial, opened, refusal
from tests.support.clock import FastClock
from tests.support.launches import (
    ID,
    NOTHING,
    ONE_OF_EACH,
    OTHER_ID,
    THREE_NODES,
    counts,
    launch,
    living,
    order,
    sweep,
    zones,
)
from toolkit.cloud.aws.account import AccessDeniedError, AwsAccount, ExpiredError, UnreachableError
from toolkit.cloud.aws.names import IAM_PATH, resource_name, spark_secret_name, tags
from toolkit.cloud.launch import ROLE_POLICY
from toolkit.cloud.sweep import find
from toolkit.errors import JobError

NAME = resource_name(ID)
MARKS = [
    {"Key": key, "Value": value} for key, value in tags(ID, owner="ann", region="eu-west-1").items()
]


def test_everything_of_a_promotion_is_found_and_removed(account):
    launch(account, order(account, nodes=2))
    found = find(account, ID)
    kinds = ["instance", "instance", "volume", "volume", "security group", "instance profile"]
    assert [each.kind for each in found] == [*kinds, "role", "secret"]
    assert {(each.promotion, each.owner) for each in found} == {(ID, "ann")}
    said = []

    removed = sweep(account, say=said.append)

    assert {each.title for each in removed} == {each.title for each in found}
    assert counts(account) == NOTHING
    assert find(account) == []
    assert [text for text in said if text.startswith("Removing instance i-")] == said[:2]
    assert said[2].startswith("Waiting until i-")
    assert said[-2:] == [f"Removing role {NAME}", f"Removing secret {spark_secret_name(ID)}"]


def test_where_nothing_is_nothing_is_done(front, moto):
    assert sweep(moto.account()) == []
    assert front.names(writing=True) == []


def test_found_says_what_it_is_and_in_which_state(account):
    launched = launch(account, order(account))
    instance, volume, *_ = find(account, ID)
    assert str(instance) == f"instance {launched.instance_ids[0]} (running)"
    assert volume.state == "in-use"
    assert str(find(account, ID)[-1]) == f"role {NAME}"


def test_all_promotions_are_found_and_one_is_removed(account):
    for promotion in (ID, OTHER_ID):
        launch(account, order(account, promotion))
    assert {each.promotion for each in find(account)} == {ID, OTHER_ID}
    assert {each.promotion for each in find(account, OTHER_ID)} == {OTHER_ID}
    sweep(account, OTHER_ID)
    assert counts(account, ID) == ONE_OF_EACH
    assert counts(account, OTHER_ID) == NOTHING


def test_what_has_no_tag_is_neither_found_nor_touched(account):
    launch(account, order(account, nodes=2))
    ec2, iam, ssm = (account.client(name) for name in ("ec2", "iam", "ssm"))
    zone = zones(account)[0]
    ours = [{"Key": "Name", "Value": f"fruits-toolkit {ID}"}]
    started = ec2.run_instances(
        ImageId="ami-00000001",
        MinCount=1,
        MaxCount=1,
        TagSpecifications=[{"ResourceType": "instance", "Tags": ours}],
    )
    instance = started["Instances"][0]["InstanceId"]
    volume = ec2.create_volume(AvailabilityZone=zone.name, Size=1)["VolumeId"]
    group = ec2.create_security_group(GroupName="theirs", Description="-", VpcId=zone.vpc)
    path = {"Path": IAM_PATH}
    iam.create_role(RoleName="theirs", AssumeRolePolicyDocument="{}", **path)
    iam.create_instance_profile(InstanceProfileName="theirs", **path)
    iam.create_role(RoleName="elsewhere", AssumeRolePolicyDocument="{}", Tags=MARKS)
    secret = f"/fruits-toolkit/{ID}/theirs"
    ssm.put_parameter(Name=secret, Type="String", Value="-")

    removed = sweep(account)

    names = {each.name for each in removed}
    assert names.isdisjoint({instance, volume, group["GroupId"], "theirs", "elsewhere", secret})
    assert find(account) == []
    running = ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]
    assert running["State"]["Name"] == "running"
    assert ec2.describe_volumes(VolumeIds=[volume])["Volumes"]
    assert ec2.describe_security_groups(GroupIds=[group["GroupId"]])["SecurityGroups"]
    assert iam.get_instance_profile(InstanceProfileName="theirs")
    assert iam.get_role(RoleName="theirs")
    assert iam.get_role(RoleName="elsewhere")
    assert ssm.get_parameter(Name=secret)


def test_name_alone_makes_nothing_ours(account):
    iam, ssm = account.client("iam"), account.client("ssm")
    iam.create_role(RoleName=NAME, Path=IAM_PATH, AssumeRolePolicyDocument="{}")
    iam.create_instance_profile(InstanceProfileName=NAME, Path=IAM_PATH)
    ssm.put_parameter(Name=spark_secret_name(ID), Type="SecureString", Value="-")
    assert find(account) == find(account, ID) == []
    assert sweep(account) == []
    assert counts(account) == NOTHING | {"profiles": 1, "roles": 1, "secrets": 1}


def test_promotion_of_another_region_keeps_its_role(account):
    elsewhere = AwsAccount("eu-central-1")
    launch(elsewhere, order(elsewhere))
    assert find(account) == []
    assert sweep(account) == []
    assert counts(elsewhere) == ONE_OF_EACH
    sweep(elsewhere)
    assert counts(elsewhere) == NOTHING


def test_disk_that_outlived_its_instance_is_removed(account):
    ec2 = account.client("ec2")
    ec2.create_volume(
        AvailabilityZone=zones(account)[0].name,
        Size=1,
        TagSpecifications=[{"ResourceType": "volume", "Tags": MARKS}],
    )
    (volume,) = find(account)
    assert (volume.kind, volume.state) == ("volume", "available")
    assert sweep(account) == [volume]
    assert counts(account) == NOTHING


def test_role_without_a_policy_and_profile_without_a_role_are_removed(account):
    iam = account.client("iam")
    own = {"Path": IAM_PATH, "Tags": MARKS}
    iam.create_role(RoleName=NAME, AssumeRolePolicyDocument="{}", **own)
    iam.create_instance_profile(InstanceProfileName=NAME, **own)
    sweep(account)
    assert counts(account) == NOTHING


# --- refusals ---


@pytest.mark.parametrize(
    ("actions", "left"),
    [
        (["ec2:TerminateInstances"], {"instances": 1, "volumes": 1}),
        (["ec2:DeleteSecurityGroup", "iam:DeleteRole"], {"groups": 1, "roles": 1}),
        (
            ["iam:RemoveRoleFromInstanceProfile", "ssm:DeleteParameter"],
            {"profiles": 1, "roles": 1, "secrets": 1},
        ),
        (["iam:DeleteInstanceProfile", "iam:DeleteRolePolicy"], {"profiles": 1, "roles": 1}),
    ],
)
def test_refusals_are_all_told_and_keep_the_sweep_from_nothing_else(
    front, moto, direct, actions, left
):
    account = moto.account()
    launch(account, order(account))
    direct.client("ssm").put_parameter(
        Name=spark_secret_name(ID), Type="SecureString", Value="-", Tags=MARKS
    )
    front.rule = lambda asked: denial(asked) if asked.name in actions else None

    with pytest.raises(JobError) as caught:
        sweep(account)

    assert counts(direct) == NOTHING | left
    for action in actions:
        assert f"{action} is not allowed" in caught.value.message
        assert front.count(action) == 1
    assert f"`toolkit sweep {ID}`" in caught.value.remedy
    for each in find(direct, ID):
        assert str(each) in caught.value.message


def test_after_a_refusal_the_next_sweep_removes_the_rest(front, moto, direct):
    account = moto.account()
    launch(account, order(account))
    front.rule = lambda asked: denial(asked) if asked.action == "DeleteSecurityGroup" else None
    with pytest.raises(JobError):
        sweep(account)
    front.rule = lambda _: None
    sweep(account)
    assert counts(direct) == NOTHING


def test_what_can_not_be_looked_at_is_no_proof(front, moto, direct):
    account = moto.account()
    launch(account, order(account, nodes=2))
    for action in (
        "DescribeInstances",
        "DescribeVolumes",
        "DescribeSecurityGroups",
        "ListInstanceProfiles",
        "GetInstanceProfile",
        "ListRoles",
        "GetRole",
        "GetParametersByPath",
        "ListTagsForResource",
    ):
        front.rule = lambda asked, action=action: denial(asked) if asked.action == action else None
        with pytest.raises(AccessDeniedError, match=f":{action} is not allowed"):
            sweep(account)
        assert front.names(writing=True)[-1] == "ec2:RunInstances"


def test_expired_credentials_end_it(front, moto):
    account = moto.account()
    launch(account, order(account))
    front.rule = lambda asked: (
        refusal(asked, "RequestExpired", "Request has expired.")
        if asked.action == "TerminateInstances"
        else None
    )
    with pytest.raises(ExpiredError):
        sweep(account)
    assert front.names()[-1] == "ec2:TerminateInstances"


# --- things that take time, or go by themselves ---


def test_group_goes_when_its_network_interfaces_have_gone(front, moto):
    account = moto.account()
    launch(account, order(account))
    front.rule = times(3, "DeleteSecurityGroup", "DependencyViolation", "It has a dependent object")
    said = []
    sweep(account, say=said.append)
    assert front.count("ec2:DeleteSecurityGroup") == 4
    assert len(said) == len(set(said))
    assert counts(account) == NOTHING


def test_disk_goes_when_it_is_detached(front, moto, direct):
    direct.client("ec2").create_volume(
        AvailabilityZone=zones(direct)[0].name,
        Size=1,
        TagSpecifications=[{"ResourceType": "volume", "Tags": MARKS}],
    )
    front.rule = times(2, "DeleteVolume", "VolumeInUse", "It is attached")
    sweep(moto.account())
    assert counts(direct) == NOTHING


def test_group_that_stays_in_use_is_told_in_the_end(front, moto, direct):
    account = moto.account()
    launch(account, order(account))
    front.rule = times(
        99, "DeleteSecurityGroup", "DependencyViolation", "It has a dependent object"
    )
    with pytest.raises(JobError, match="dependent object"):
        sweep(account, patience=20)
    assert counts(direct) == NOTHING | {"groups": 1}


def test_nothing_else_goes_before_the_instances_have_ended(front, moto, direct):
    account = moto.account()
    launch(account, order(account, nodes=2))
    ending = times(3, "DescribeInstances", body=_shutting_down())
    front.rule = lambda asked: ending(asked) if front.count("ec2:TerminateInstances") else None
    sweep(account)
    names = front.names()
    ended = max(number for number, name in enumerate(names) if name == "ec2:TerminateInstances")
    removals = [number for number, name in enumerate(names) if ":Delete" in name]
    assert names[ended : min(removals)].count("ec2:DescribeInstances") == 4
    assert counts(direct) == NOTHING


def test_what_goes_meanwhile_is_no_matter(account, moto):
    launch(account, order(account, nodes=2))
    other = opened(moto.account())
    gone = []

    def say(text: str) -> None:
        removing, _, name = text.rpartition(" ")
        kind = removing.removeprefix("Removing ")
        if kind != removing:
            remove(other, kind, name)
            gone.append(kind)

    sweep(account, say=say)
    assert gone == ["instance"] * 2 + ["security group", "instance profile", "role", "secret"]
    assert counts(account) == NOTHING


def test_instance_that_appears_late_is_removed_too(account):
    launch(account, order(account))
    late = []

    def say(text: str) -> None:
        if text.startswith("Removing role"):
            late.append(start_one(account))

    removed = sweep(account, say=say)
    assert late[0] in {each.name for each in removed}
    assert counts(account) == NOTHING


def test_instance_that_is_shown_only_later_is_waited_for(front, moto, direct):
    start_one(direct)
    instances = times(2, "DescribeInstances", body=f"<R {_XML}><reservationSet/></R>")
    volumes = times(2, "DescribeVolumes", body=f"<R {_XML}><volumeSet/></R>")
    front.rule = lambda asked: instances(asked) or volumes(asked)
    removed = sweep(moto.account(), settled=5, clock=FastClock().clock)
    assert [each.kind for each in removed] == ["instance", "volume"]
    assert counts(direct) == NOTHING


def test_role_that_lists_still_show_is_no_matter(front, moto, direct):
    account = moto.account()
    launch(account, order(account))
    lists, stale = [], [2]

    def remember(asked, body: bytes) -> None:
        if asked.action == "ListRoles":
            lists.append(body.decode())

    def rule(asked):
        gone = any(each.action == "DeleteRole" for each in front.asked)
        if gone and asked.action == "ListRoles" and stale[0]:
            stale[0] -= 1
            return Answer(200, lists[0])
        return denial(asked) if gone and asked.action == "GetRole" else None

    front.then, front.rule = remember, rule
    sweep(account)
    assert stale == [0]
    assert counts(direct) == NOTHING


def test_role_that_somebody_has_extended_is_told(account):
    launch(account, order(account))
    account.client("iam").put_role_policy(RoleName=NAME, PolicyName="more", PolicyDocument=MORE)
    with pytest.raises(JobError, match="must delete policies first"):
        sweep(account)
    assert counts(account) == NOTHING | {"roles": 1}
    assert ROLE_POLICY not in account.client("iam").list_role_policies(RoleName=NAME)["PolicyNames"]


# --- a reply that is lost ---


def test_instances_of_lost_replies_are_found(front, moto, direct):
    account = moto.account()
    front.rule = lambda asked: Answer(0, "", after=True) if asked.action == "RunInstances" else None
    with pytest.raises(UnreachableError):
        launch(account, order(direct))
    # moto takes no heed of the client token: boto3's retries have made several.
    assert counts(direct)["instances"] == front.count("ec2:RunInstances") > 1
    removed = sweep(direct)
    assert len([each for each in removed if each.kind == "instance"]) > 1
    assert counts(direct) == NOTHING


# --- what the tests say more than once ---

MORE = (
    '{"Version": "2012-10-17",'
    ' "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}'
)
_XML = 'xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"'


def _shutting_down() -> str:
    """Return what EC2 says of an instance that it is just ending."""
    marks = "".join(
        f"<item><key>{mark['Key']}</key><value>{mark['Value']}</value></item>" for mark in MARKS
    )
    instance = (
        "<item><instanceId>i-0123456789abcdef0</instanceId>"
        "<instanceState><code>32</code><name>shutting-down</name></instanceState>"
        f"<tagSet>{marks}</tagSet></item>"
    )
    reservation = f"<item><instancesSet>{instance}</instancesSet></item>"
    return f"<R {_XML}><reservationSet>{reservation}</reservationSet></R>"


def times(number: int, action: str, code: str = "", message: str = "", *, body: str = ""):
    """Return a rule that refuses an action so often, or answers it with the body."""
    left = [number]

    def rule(asked):
        if asked.action != action or not left[0]:
            return None
        left[0] -= 1
        return Answer(200, body) if body else refusal(asked, code, message)

    return rule


def start_one(account) -> str:
    """Start an instance that carries the promotion's tags, and nothing else; return its id."""
    answer = account.client("ec2").run_instances(
        ImageId="ami-00000001",
        MinCount=1,
        MaxCount=1,
        TagSpecifications=[
            {"ResourceType": kind, "Tags": MARKS} for kind in ("instance", "volume")
        ],
    )
    return answer["Instances"][0]["InstanceId"]


def remove(account, kind: str, name: str) -> None:
    """Remove a thing as another process would."""
    ec2, iam, ssm = (account.client(service) for service in ("ec2", "iam", "ssm"))
    if kind == "instance":
        ec2.terminate_instances(InstanceIds=[name])
    elif kind == "security group":
        ec2.delete_security_group(GroupId=name)
    elif kind == "instance profile":
        iam.remove_role_from_instance_profile(InstanceProfileName=name, RoleName=name)
        iam.delete_instance_profile(InstanceProfileName=name)
    elif kind == "role":
        iam.delete_role_policy(RoleName=name, PolicyName=ROLE_POLICY)
        iam.delete_role(RoleName=name)
    else:
        ssm.delete_parameter(Name=name)


def test_helpers_count_as_the_sweep_does(account):
    launch(account, order(account, nodes=3))
    assert counts(account) == THREE_NODES
    assert len(find(account)) == sum(THREE_NODES.values())
    assert len(living(account, "instances")) == 3
