"""`toolkit profile check` and `policy`: what an account lacks, and what its people need."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from toolkit.cloud.aws.account import Identity
from toolkit.cloud.aws.instance_profile import ExistingProfile
from toolkit.cloud.aws.policy import (
    LONGEST_MANAGED,
    NODE_TRUST,
    node_policy,
    person_policy,
)
from toolkit.storage import Location

if TYPE_CHECKING:
    from tests.support.moto import Moto

REGION = "eu-west-1"
ACCOUNT = "123456789012"
ROOT = Identity(ACCOUNT, f"arn:aws:iam::{ACCOUNT}:root")


def policy_of(call, *arguments: str) -> dict:
    """Return the whole policy, in however many documents it is printed."""
    command = ("profile", "policy", *arguments)
    printed = call(*command)
    if printed.returncode == 0:
        return json.loads(printed.stdout)
    parts = [call(*command, "--part", str(number)) for number in (1, 2)]
    first, second = (json.loads(part.stdout) for part in parts)
    return first | {"Statement": first["Statement"] + second["Statement"]}


# --- check ---


def test_check_of_an_account_in_order_says_what_it_found(call, aws: Moto, bucket) -> None:
    done = call("profile", "check")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["looked", "at", "found"]
    assert lines[1].split()[:3] == ["account", "ok", f"{ACCOUNT},"]
    assert f"{bucket} in {REGION}" in done.stdout
    assert "promote --plan" in done.stderr


def test_check_prints_facts_or_problems_as_json(call, aws: Moto, monkeypatch) -> None:
    document = json.loads(call("profile", "check", "--json").stdout)
    assert document["problems"] == []
    assert document["facts"]["identity"]["account"] == ACCOUNT
    assert document["facts"]["instance_type"]["vcpus"] == 8
    monkeypatch.setenv("TOOLKIT_S3__BUCKET", "no-such-orchard")
    monkeypatch.setenv("TOOLKIT_AWS__INSTANCE_TYPE", "c7i.3xlarge")
    done = call("profile", "check", "aws", "--json")
    assert done.returncode == 2
    document = json.loads(done.stdout)
    assert document["facts"] is None
    told = [each["what"] for each in document["problems"]]
    assert told[0] == "There is no bucket no-such-orchard."
    assert "c7i.3xlarge" in told[1]
    assert "2 problems" in done.stderr


def test_check_allows_another_region_to_who_will_pay(call, aws: Moto, monkeypatch) -> None:
    aws.equip("eu-central-1")
    monkeypatch.setenv("TOOLKIT_AWS__REGION", "eu-central-1")
    refused = call("profile", "check")
    assert refused.returncode == 2
    assert "--allow-cross-region" in refused.stdout
    assert call("profile", "check", "--allow-cross-region").returncode == 0


def test_check_before_there_are_credentials_or_a_bucket_says_how_to_get_them(
    call, bucket, monkeypatch
) -> None:
    monkeypatch.delenv("TOOLKIT_S3__BUCKET")
    done = call("profile", "check")
    assert done.returncode == 2
    assert "there are no AWS credentials" in done.stdout
    assert "aws configure" in done.stdout
    assert "profile init aws" in done.stderr
    assert "Traceback" not in done.stderr


def test_check_of_an_unknown_profile_is_refused(call, bucket) -> None:
    done = call("profile", "check", "nope")
    assert done.returncode == 2
    assert "no profile 'nope'" in done.stderr


# --- policy ---


def test_policy_is_the_one_that_is_needed_and_iam_takes_it(call, aws: Moto, bucket) -> None:
    done = call("profile", "policy")
    assert done.returncode == 0, done.stderr
    identity = aws.account().identity()
    wanted = person_policy(identity, region=REGION, bucket=bucket)
    assert json.loads(done.stdout) == json.loads(wanted.to_json())
    made = aws.account().client("iam").create_policy(PolicyName="p", PolicyDocument=done.stdout)
    assert made["Policy"]["Arn"]
    assert "any right into such a role" in done.stderr
    assert "aws.instance_profile" in done.stderr


def test_policy_needs_no_credentials(call, bucket, monkeypatch) -> None:
    done = call("profile", "policy")
    assert done.returncode == 0, done.stderr
    assert "no AWS credentials. So the account in the policy is `*`" in done.stderr
    anyone = Identity("*", "arn:aws:iam::*:root")
    wanted = person_policy(anyone, region=REGION, bucket=bucket)
    assert json.loads(done.stdout) == json.loads(wanted.to_json())
    monkeypatch.setenv("TOOLKIT_S3__REGION", "cn-north-1")
    assert "arn:aws-cn:ec2:cn-north-1:*:instance/*" in call("profile", "policy").stdout


def test_policy_with_any_account_is_one_that_iam_takes(call, aws: Moto, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        patch.delenv("AWS_ACCESS_KEY_ID")
        patch.delenv("AWS_SECRET_ACCESS_KEY")
        printed = call("profile", "policy").stdout
    assert "arn:aws:iam::*:role" in printed
    aws.account().client("iam").create_policy(PolicyName="p", PolicyDocument=printed)


def test_policy_of_a_named_account_asks_nobody(call, bucket) -> None:
    done = call("profile", "policy", "--account", ACCOUNT)
    wanted = person_policy(ROOT, region=REGION, bucket=bucket)
    assert json.loads(done.stdout) == json.loads(wanted.to_json())
    assert "credentials" not in done.stderr
    refused = call("profile", "policy", "--account", "mine")
    assert refused.returncode == 2
    assert "'mine' is not the number" in refused.stderr


def test_policy_covers_images_and_output_elsewhere(call, bucket) -> None:
    elsewhere = ("--images", "s3://photos/2026", "--output", "s3a://results/fruits")
    elsewhere += ("--weights", "s3://nets/resnet.h5")
    printed = policy_of(call, "--account", ACCOUNT, *elsewhere)
    wanted = person_policy(
        ROOT,
        region=REGION,
        bucket=bucket,
        reads=[Location("photos", "2026"), Location("nets", "resnet.h5")],
        output=Location("results", "fruits"),
    )
    assert printed == json.loads(wanted.to_json())


def test_policy_that_iam_would_not_take_is_printed_in_parts(call, bucket, monkeypatch) -> None:
    monkeypatch.setenv("TOOLKIT_S3__BUCKET", "b" * 63)
    command = ("profile", "policy", "--account", ACCOUNT)
    refused = call(*command)
    assert refused.returncode == 2
    assert refused.stdout == ""
    assert "--part 1, --part 2" in refused.stderr
    parts = [json.loads(call(*command, "--part", str(number)).stdout) for number in (1, 2)]
    wanted = person_policy(ROOT, region=REGION, bucket="b" * 63)
    assert policy_of(call, "--account", ACCOUNT) == json.loads(wanted.to_json())
    assert all(len(json.dumps(part, separators=(",", ":"))) <= LONGEST_MANAGED for part in parts)
    assert "no part 3" in call(*command, "--part", "3").stderr


def test_policy_of_the_nodes_serves_several_of_them(call, bucket) -> None:
    done = call("profile", "policy", "--node", "--account", ACCOUNT, "--images", "s3://photos/2026")
    wanted = node_policy(
        ROOT,
        region=REGION,
        bucket=bucket,
        reads=[Location("photos", "2026")],
    )
    assert json.loads(done.stdout) == json.loads(wanted.to_json())
    assert "ssm:GetParameter" in done.stdout
    assert f"--assume-role-policy-document '{NODE_TRUST}'" in done.stderr


def test_policy_with_an_instance_profile_of_ones_own_passes_its_role_alone(
    call, aws: Moto, bucket, monkeypatch
) -> None:
    iam = aws.account().client("iam")
    iam.create_role(RoleName="worker", Path="/ours/", AssumeRolePolicyDocument=NODE_TRUST)
    iam.create_instance_profile(InstanceProfileName="orchard", Path="/ours/")
    iam.add_role_to_instance_profile(InstanceProfileName="orchard", RoleName="worker")
    monkeypatch.setenv("TOOLKIT_AWS__INSTANCE_PROFILE", "orchard")
    done = call("profile", "policy")
    existing = ExistingProfile(
        f"arn:aws:iam::{ACCOUNT}:instance-profile/ours/orchard",
        f"arn:aws:iam::{ACCOUNT}:role/ours/worker",
    )
    identity = aws.account().identity()
    wanted = person_policy(identity, region=REGION, bucket=bucket, existing=existing)
    assert json.loads(done.stdout) == json.loads(wanted.to_json())
    assert "any right" not in done.stderr


def test_policy_takes_a_role_that_it_can_not_look_up_by_the_profiles_name_and_says_so(
    call, bucket, monkeypatch
) -> None:
    monkeypatch.setenv("TOOLKIT_AWS__INSTANCE_PROFILE", "orchard")
    done = call("profile", "policy", "--account", ACCOUNT)
    assert f'"arn:aws:iam::{ACCOUNT}:role/orchard"' in done.stdout
    assert "put the right ARN in its place" in done.stderr
