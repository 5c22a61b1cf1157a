"""What Canonical has on AWS and moto lacks: images of Ubuntu 24.04, and the parameter for them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from toolkit.cloud.aws.machine_image import CANONICAL, PARAMETER

NAME = "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-amd64-server-20260901"
NEWER = "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-amd64-server-20261103"


def backend(service: str, region: str) -> Any:
    """Return moto's state of a service in a region."""
    from moto.backends import get_backend
    from moto.core import DEFAULT_ACCOUNT_ID

    of_account = get_backend(service)[DEFAULT_ACCOUNT_ID]
    return of_account["aws" if service == "iam" else region]


def add_image(
    region: str,
    ami: str,
    *,
    name: str = NAME,
    created: str = "2026-09-01T03:36:55.000Z",
    owner: str = CANONICAL,
    **fields: str,
) -> str:
    """Put an image of 15 GiB, as all of moto's are, into a region; return its id."""
    from moto.ec2.models.amis import Ami

    ec2 = backend("ec2", region)
    usual = {
        "architecture": "x86_64",
        "root_device_type": "ebs",
        "virtualization_type": "hvm",
        "region_name": f"{region}a",
    }
    ec2.amis[ami] = Ami(
        ec2,
        ami,
        name=name,
        owner_id=owner,
        creation_date=datetime.fromisoformat(created),
        **(usual | fields),
    )
    return ami


def set_parameter(region: str, ami: str) -> None:
    """Let Canonical's public parameter name an image."""
    from moto.core import DEFAULT_ACCOUNT_ID
    from moto.core.utils import utcnow
    from moto.ssm.models import Parameter

    backend("ssm", region)._parameters[PARAMETER] = [
        Parameter(
            account_id=DEFAULT_ACCOUNT_ID,
            name=PARAMETER,
            value=ami,
            parameter_type="String",
            description=None,
            allowed_pattern=None,
            keyid=None,
            last_modified_date=utcnow(),
            version=1,
            data_type="aws:ec2:image",
        )
    ]
