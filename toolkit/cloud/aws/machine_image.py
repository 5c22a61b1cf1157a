"""The machine image that a node boots: the profile's own, or Canonical's newest Ubuntu 24.04."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from toolkit.cloud.aws.account import AwsError, ExpiredError, aws_errors
from toolkit.errors import RequestError

if TYPE_CHECKING:
    from toolkit.cloud.aws.account import AwsAccount

__all__ = ["ARCHITECTURE", "CANONICAL", "PARAMETER", "MachineImage", "find_machine_image"]

ARCHITECTURE = "x86_64"
"""EC2's name of the one architecture that the lock file has wheels for."""

# "Find Ubuntu images on AWS", https://documentation.ubuntu.com/aws/aws-how-to/instances/
PARAMETER = "/aws/service/canonical/ubuntu/server/24.04/stable/current/amd64/hvm/ebs-gp3/ami-id"
"""Public parameter of the Systems Manager that holds the id of the newest image in its region."""

CANONICAL = "099720109477"
"""Canonical's account. Anybody may give an image any name: a search without owner is unsafe."""

# The folder has been hvm-ssd and is hvm-ssd-gp3; `server-minimal` and daily builds do not match.
_NAMES = "ubuntu/images/hvm-ssd*/ubuntu-noble-24.04-amd64-server-*"


@dataclass(frozen=True, slots=True)
class MachineImage:
    """An image that exists in the region.

    Attributes
    ----------
    id, name
        Its own.
    architecture
        As EC2 calls it: ``x86_64``, ``arm64``.
    root_device
        Name of the root device, for example ``/dev/sda1``; empty where the image has no EBS volume.
    root_gib
        Size of the image's root volume, in GiB; an instance's can't be smaller.
    state
        ``available``, if instances can be made of it.
    passed_over
        Why it was not found where it should have been; empty if it was.
    """

    id: str
    name: str
    architecture: str
    root_device: str
    root_gib: int
    state: str
    passed_over: str = ""


def find_machine_image(account: AwsAccount, ami: str | None = None) -> MachineImage:
    """Return the image named, or Canonical's newest Ubuntu 24.04 for x86_64.

    Canonical's public parameter tells which one that is. Where it can't be read, or names an image
    that is not there, Canonical's images are searched for the newest.

    Parameters
    ----------
    account
        In the region of the instances.
    ami
        Id of an image; it is only looked up, not judged.

    Raises
    ------
    RequestError
        There is no such image in the region.
    AwsError
        AWS refuses to tell, or does not answer.
    """
    if ami:
        return _named(account, ami)
    try:
        return _of_parameter(account)
    except ExpiredError:
        raise
    except (AwsError, _NotThereError) as exc:
        return _newest(account, passed_over=exc.message)


class _NotThereError(RequestError):
    """The region has no such image, or it is not for this account to see."""


def _named(account: AwsAccount, ami: str) -> MachineImage:
    # Asked for by its id, EC2 answers with one of four errors when it has none to show; asked for
    # what has that id, with nothing.
    with aws_errors(doing=f"look up the machine image {ami}"):
        answer = account.client("ec2").describe_images(
            Filters=[{"Name": "image-id", "Values": [ami]}],
            IncludeDeprecated=True,
        )
    images = answer["Images"]
    if not images:
        raise _NotThereError(
            f"There is no machine image {ami} in {account.region} that this account may use.",
            remedy="Each region has its own ids. Name one of this region in the setting aws.ami "
            "(TOOLKIT_AWS__AMI), or leave it out: then it is Canonical's Ubuntu 24.04.",
        )
    return _image(images[0])


def _of_parameter(account: AwsAccount) -> MachineImage:
    with aws_errors(doing="read Canonical's parameter for Ubuntu 24.04"):
        parameter = account.client("ssm").get_parameter(Name=PARAMETER)
    return _named(account, parameter["Parameter"]["Value"])


def _newest(account: AwsAccount, *, passed_over: str) -> MachineImage:
    filters = {
        "name": _NAMES,
        "architecture": ARCHITECTURE,
        "state": "available",
        "virtualization-type": "hvm",
    }
    with aws_errors(doing="search Canonical's machine images"):
        pages = (
            account.client("ec2")
            .get_paginator("describe_images")
            .paginate(
                Owners=[CANONICAL],
                Filters=[{"Name": name, "Values": [value]} for name, value in filters.items()],
            )
        )
        images = [image for page in pages for image in page["Images"]]
    if not images:
        raise _NotThereError(
            f"Canonical has no image of Ubuntu 24.04 in {account.region}. {passed_over}",
            remedy="Name a machine image of Ubuntu 24.04 in the setting aws.ami "
            "(TOOLKIT_AWS__AMI).",
        )
    # ISO 8601 in UTC, all of the same length: they sort as text.
    return _image(max(images, key=lambda image: image["CreationDate"]), passed_over=passed_over)


def _image(found: dict[str, Any], *, passed_over: str = "") -> MachineImage:
    root = found.get("RootDeviceName", "") if found.get("RootDeviceType") == "ebs" else ""
    sizes = {
        mapping.get("DeviceName"): mapping["Ebs"].get("VolumeSize", 0)
        for mapping in found.get("BlockDeviceMappings", [])
        if "Ebs" in mapping
    }
    return MachineImage(
        id=found["ImageId"],
        name=found.get("Name", ""),
        architecture=found.get("Architecture", ""),
        root_device=root,
        root_gib=sizes.get(root, 0),
        state=found.get("State", ""),
        passed_over=passed_over,
    )
