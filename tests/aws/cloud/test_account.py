"""The AWS account, on moto's server and on servers that refuse in AWS's own words."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING

import pytest

from toolkit.cloud.aws.account import (
    AccessDeniedError,
    AwsAccount,
    AwsError,
    CapacityError,
    CredentialsError,
    ExpiredError,
    Identity,
    QuotaError,
    ThrottledError,
    UnreachableError,
    aws_errors,
)
from toolkit.errors import RequestError

if TYPE_CHECKING:
    from pathlib import Path

REGION = "eu-west-1"
TOKEN = "FwoGZXIvYXdzEBYaDHVubWlzdGFrYWJsZQ"


def describe(account, **options):
    with aws_errors(doing="list the instances"):
        return account.client("ec2", attempts=1, **options).describe_instances()


def test_identity_names_the_account_and_the_user(moto) -> None:
    moto.sign_in("alice")
    identity = moto.account().identity()
    assert identity.account == "123456789012"
    assert identity.user == "alice"


@pytest.mark.parametrize(
    ("arn", "user"),
    [
        ("arn:aws:iam::123456789012:user/data/alice", "alice"),
        (
            "arn:aws:sts::123456789012:assumed-role/Engineer/alice@fruits.example",
            "alice@fruits.example",
        ),
        ("arn:aws:iam::123456789012:root", "root"),
    ],
)
def test_user_is_the_last_part_of_the_arn(arn: str, user: str) -> None:
    assert Identity("123456789012", arn).user == user


def test_clients_are_made_once_and_try_again_a_bounded_number_of_times(moto) -> None:
    account = moto.account()
    client = account.client("ec2")
    assert account.client("ec2") is client
    assert client.meta.region_name == REGION
    assert client.meta.config.retries == {"mode": "standard", "total_max_attempts": 5}
    adaptive = account.client("ec2", retries="adaptive", region="us-east-1")
    assert adaptive.meta.config.retries["mode"] == "adaptive"
    assert adaptive.meta.region_name == "us-east-1"


def test_without_credentials_the_ways_to_get_some_are_named(no_aws) -> None:
    with pytest.raises(CredentialsError, match="there are no AWS credentials") as raised:
        AwsAccount(REGION).identity()
    assert "aws configure" in raised.value.remedy
    assert "AWS_ACCESS_KEY_ID" in raised.value.remedy
    assert raised.value.exit_code == 2


def test_unknown_profile_is_named(no_aws) -> None:
    no_aws.setenv("AWS_PROFILE", "fruit-salad")
    with pytest.raises(CredentialsError, match="fruit-salad"):
        AwsAccount(REGION)


def test_half_a_key_pair_is_refused(no_aws) -> None:
    no_aws.setenv("AWS_ACCESS_KEY_ID", "AKIATESTTESTTESTTEST")
    with pytest.raises(CredentialsError, match="AWS_SECRET_ACCESS_KEY"):
        AwsAccount(REGION).identity()


def test_expired_token_asks_for_a_new_sign_in(refusing) -> None:
    refusing("sts", "ExpiredToken", "The security token included in the request is expired")
    with pytest.raises(ExpiredError, match="have expired") as raised:
        AwsAccount(REGION).identity()
    assert "aws sso login" in raised.value.remedy
    assert "aws configure" in raised.value.remedy
    assert raised.value.code == "ExpiredToken"
    assert raised.value.exit_code == 1


def test_sso_profile_without_a_token_asks_to_sign_in_with_that_profile(
    no_aws, tmp_path: Path
) -> None:
    (tmp_path / "config").write_text(
        "[profile fruits]\n"
        "sso_session = orchard\n"
        "sso_account_id = 123456789012\n"
        "sso_role_name = Engineer\n"
        "[sso-session orchard]\n"
        "sso_region = eu-west-1\n"
        "sso_start_url = https://orchard.awsapps.com/start\n"
    )
    no_aws.setenv("AWS_PROFILE", "fruits")
    with pytest.raises(ExpiredError) as raised:
        AwsAccount(REGION).identity()
    assert "aws sso login --profile fruits" in raised.value.remedy


def test_unknown_keys_are_told_from_expired_ones(refusing) -> None:
    refusing("sts", "InvalidClientTokenId", "The security token included in the request is invalid")
    with pytest.raises(CredentialsError, match="does not accept"):
        AwsAccount(REGION).identity()


def test_wrong_clock_is_told_from_wrong_keys(refusing) -> None:
    refusing(
        "sts",
        "SignatureDoesNotMatch",
        "Signature expired: 20261125T101010Z is now earlier than 20261125T111010Z",
        status=403,
    )
    with pytest.raises(CredentialsError, match="clock") as raised:
        AwsAccount(REGION).identity()
    assert "wsl --shutdown" in raised.value.remedy


def test_neither_message_nor_traceback_shows_a_signed_request(refusing) -> None:
    refusing(
        "sts",
        "SignatureDoesNotMatch",
        "The request signature we calculated does not match. The Canonical String should have "
        f"been 'POST / x-amz-security-token:{TOKEN}'",
        status=403,
    )
    with pytest.raises(CredentialsError) as raised:
        AwsAccount(REGION).identity()
    assert TOKEN not in "".join(traceback.format_exception(raised.value))


def test_missing_permission_is_named_as_moto_enforces_it(moto) -> None:
    moto.sign_in("bob")
    moto.enforce()
    with pytest.raises(AccessDeniedError) as raised:
        describe(moto.account())
    assert raised.value.action == "ec2:DescribeInstances"
    assert "ec2:DescribeInstances" in raised.value.remedy


def test_missing_permission_is_read_out_of_ec2s_own_words(refusing) -> None:
    user = "arn:aws:iam::123456789012:user/alice"
    refusing(
        "ec2",
        "UnauthorizedOperation",
        f"You are not authorized to perform this operation. User: {user} is not authorized to "
        "perform: ec2:RunInstances on resource: arn:aws:ec2:eu-west-1:123456789012:instance/* "
        "because no identity-based policy allows the ec2:RunInstances action. Encoded "
        f"authorization failure message: {'4GIOHlTkIaWHQD0Q' * 60}",
        status=403,
    )
    with pytest.raises(AccessDeniedError) as raised:
        describe(AwsAccount(REGION))
    assert raised.value.action == "ec2:RunInstances"
    assert raised.value.code == "UnauthorizedOperation"
    assert user in raised.value.message
    assert "4GIOHlTk" not in raised.value.message


def test_permission_that_aws_does_not_name_is_that_of_the_operation(refusing) -> None:
    refusing("ec2", "UnauthorizedOperation", "You are not authorized.", status=403)
    with pytest.raises(AccessDeniedError) as raised:
        describe(AwsAccount(REGION))
    assert raised.value.action == "DescribeInstances"


@pytest.mark.parametrize(
    ("code", "status", "error"),
    [
        ("InsufficientInstanceCapacity", 500, CapacityError),
        ("InsufficientFreeAddressesInSubnet", 400, CapacityError),
        ("SpotMaxPriceTooLow", 400, CapacityError),
        ("Unsupported", 400, CapacityError),
        ("VcpuLimitExceeded", 400, QuotaError),
        ("MaxSpotInstanceCountExceeded", 400, QuotaError),
        ("InvalidAMIID.NotFound", 400, AwsError),
        ("InternalError", 500, AwsError),
    ],
)
def test_refusal_keeps_awss_code_in_a_class_that_launching_can_act_on(
    refusing, code: str, status: int, error: type[AwsError]
) -> None:
    refusing("ec2", code, "We do not have sufficient c7i.2xlarge capacity", status=status)
    with pytest.raises(AwsError) as raised:
        describe(AwsAccount(REGION))
    assert type(raised.value) is error
    assert raised.value.code == code
    assert raised.value.message.startswith("Could not list the instances: We do not have")


def test_throttling_is_told_after_all_attempts(refusing) -> None:
    server = refusing("ec2", "RequestLimitExceeded", "Request limit exceeded.", status=503)
    with (
        pytest.raises(ThrottledError, match="Request limit exceeded"),
        aws_errors(doing="list the instances"),
    ):
        AwsAccount(REGION).client("ec2", attempts=2).describe_instances()
    assert len(server.requests) == 2


def test_unreachable_aws_is_told_apart(aws_keys) -> None:
    with pytest.raises(UnreachableError, match=r"127\.0\.0\.1:9") as raised:
        describe(AwsAccount(REGION))
    assert "AWS_ENDPOINT_URL" in raised.value.remedy


@pytest.mark.parametrize(
    "variables",
    [
        {"AWS_ENDPOINT_URL": "http://alice:hunter2@127.0.0.1:9"},
        {
            "AWS_ENDPOINT_URL": "http://ec2.test.invalid",
            "http_proxy": "http://a:hunter2@127.0.0.1:9",
        },
    ],
    ids=["endpoint", "proxy"],
)
def test_password_in_an_address_is_not_shown(aws_keys, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        aws_keys.setenv(name, value)
    with pytest.raises(UnreachableError) as raised:
        describe(AwsAccount(REGION))
    assert "hunter2" not in str(raised.value)


def test_parameters_that_boto3_refuses_are_not_shown(aws_keys) -> None:
    with (
        pytest.raises(RequestError, match="refuses a parameter") as raised,
        aws_errors(doing="launch the instance"),
    ):
        AwsAccount(REGION).client("ec2").run_instances(InstanceType={"secret": TOKEN})
    assert TOKEN not in str(raised.value)


def test_region_that_is_none_is_refused(aws_keys) -> None:
    with pytest.raises(RequestError, match="not a region"):
        AwsAccount("not a region").client("ec2")


def test_errors_of_others_pass_through() -> None:
    with pytest.raises(ZeroDivisionError), aws_errors(doing="divide"):
        _ = 1 / 0
