"""The machine image, on moto's server: named, of Canonical's parameter, searched for."""

from __future__ import annotations

import pytest

from tests.support.aws_proxy import leading_through, refusal
from tests.support.ubuntu_images import NEWER, add_image, set_parameter
from toolkit.cloud.aws.account import AccessDeniedError, ExpiredError
from toolkit.cloud.aws.machine_image import MachineImage, find_machine_image
from toolkit.errors import RequestError

SOMEBODY = "210987654321"


def test_image_of_the_parameter_is_taken_even_if_there_is_a_newer_one(moto) -> None:
    set_parameter(moto.region, add_image(moto.region, "ami-00000001"))
    add_image(moto.region, "ami-00000002", name=NEWER, created="2026-11-03T00:00:00.000Z")
    found = find_machine_image(moto.account())
    assert found == MachineImage(
        id="ami-00000001",
        name="ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-amd64-server-20260901",
        architecture="x86_64",
        root_device="/dev/sda1",
        root_gib=15,
        state="available",
    )


def test_without_the_parameter_canonicals_newest_server_image_is_searched(moto) -> None:
    newer = {"created": "2026-11-03T00:00:00.000Z"}
    newest = {"created": "2026-11-20T00:00:00.000Z"}
    add_image(moto.region, "ami-00000001")
    add_image(moto.region, "ami-00000002", name=NEWER, **newer)
    add_image(moto.region, "ami-00000003", name=NEWER, owner=SOMEBODY, **newest)
    add_image(moto.region, "ami-00000004", name=NEWER, architecture="arm64", **newest)
    add_image(moto.region, "ami-00000005", name=NEWER, state="deregistered", **newest)
    for number, other in enumerate(("server", "server-minimal"), start=6):
        name = NEWER.replace("noble-24.04", "jammy-22.04").replace("server", other)
        add_image(moto.region, f"ami-0000000{number}", name=name, **newest)
    daily = NEWER.replace("ubuntu/images/", "ubuntu/images-testing/")
    add_image(moto.region, "ami-00000008", name=daily, **newest)
    minimal = NEWER.replace("ubuntu/images/", "ubuntu-minimal/images/")
    add_image(moto.region, "ami-00000009", name=minimal.replace("server", "minimal"), **newest)

    found = find_machine_image(moto.account())
    assert found.id == "ami-00000002"
    assert "Canonical's parameter" in found.passed_over


def test_image_that_the_parameter_names_and_that_is_gone_is_searched_for(moto) -> None:
    set_parameter(moto.region, "ami-00000001")
    add_image(moto.region, "ami-00000002")
    found = find_machine_image(moto.account())
    assert found.id == "ami-00000002"
    assert "ami-00000001" in found.passed_over


def test_parameter_that_may_not_be_read_is_done_without(moto) -> None:
    set_parameter(moto.region, add_image(moto.region, "ami-00000001"))
    moto.sign_in("alice", allow("ec2:DescribeImages"))
    moto.enforce()
    found = find_machine_image(moto.account())
    assert found.id == "ami-00000001"
    assert "ssm:GetParameter" in found.passed_over


def test_who_may_not_see_images_is_told_the_action(moto) -> None:
    set_parameter(moto.region, add_image(moto.region, "ami-00000001"))
    moto.sign_in("alice", allow("ssm:GetParameter"))
    moto.enforce()
    with pytest.raises(AccessDeniedError, match="ec2:DescribeImages"):
        find_machine_image(moto.account())


def test_expired_credentials_are_no_reason_to_search(moto) -> None:
    with leading_through(moto) as front:
        front.rule = lambda asked: refusal(asked, "ExpiredTokenException", "It is expired.")
        with pytest.raises(ExpiredError):
            find_machine_image(moto.account())
        assert front.names() == ["ssm:GetParameter"]


def test_region_without_ubuntu_asks_for_an_image(moto) -> None:
    with pytest.raises(RequestError, match=r"no image of Ubuntu 24\.04 in eu-west-1") as raised:
        find_machine_image(moto.account())
    assert "aws.ami" in raised.value.remedy
    assert "parameter" in raised.value.message


def test_named_image_is_looked_up_and_not_judged(moto) -> None:
    add_image(moto.region, "ami-0000000a", name="ours", owner=SOMEBODY, architecture="arm64")
    set_parameter(moto.region, add_image(moto.region, "ami-00000001"))
    found = find_machine_image(moto.account(), "ami-0000000a")
    assert (found.id, found.name, found.architecture) == ("ami-0000000a", "ours", "arm64")


def test_image_without_a_volume_has_no_root_device(moto) -> None:
    add_image(moto.region, "ami-0000000a", root_device_type="instance-store")
    found = find_machine_image(moto.account(), "ami-0000000a")
    assert (found.root_device, found.root_gib) == ("", 0)


def test_named_image_that_is_not_there_is_refused_without_a_search(moto) -> None:
    set_parameter(moto.region, add_image(moto.region, "ami-00000001"))
    with pytest.raises(RequestError, match="no machine image ami-0000000b in eu-west-1"):
        find_machine_image(moto.account(), "ami-0000000b")


def allow(*actions: str) -> dict:
    statement = {"Effect": "Allow", "Action": list(actions), "Resource": "*"}
    return {"Version": "2012-10-17", "Statement": [statement]}
