"""What the things of a promotion are called in AWS, and the tags by which they are found again."""

from __future__ import annotations

import re

__all__ = [
    "IAM_PATH",
    "OWNER_TAG",
    "PARAMETER_PATH",
    "REGION_TAG",
    "RUN_TAG",
    "resource_name",
    "spark_secret_name",
    "tags",
]

RUN_TAG = "toolkit:run"
"""Tag of everything that is created: the promotion's id."""

OWNER_TAG = "toolkit:owner"
"""Tag that says who created it."""

REGION_TAG = "toolkit:region"
"""Tag that says where the instances are: roles and instance profiles belong to no region."""

IAM_PATH = "/fruits-toolkit/"
"""Path of roles and instance profiles."""

PARAMETER_PATH = "/fruits-toolkit"
"""Path of secrets in the parameter store."""

# What IAM and SSM, stricter than EC2, take as the value of a tag:
# https://docs.aws.amazon.com/IAM/latest/APIReference/API_Tag.html
_NOT_IN_TAGS = re.compile(r"[^\w\s.:/=+\-@]")
_LONGEST_TAG = 256


def resource_name(promotion: str) -> str:
    """Return the name of the promotion's security group, role and instance profile."""
    return f"fruits-toolkit-{promotion}"


def spark_secret_name(promotion: str) -> str:
    """Return the name of the parameter that holds the secret of the promotion's Spark cluster."""
    return f"{PARAMETER_PATH}/{promotion}/spark-secret"


def tags(promotion: str, *, owner: str, region: str) -> dict[str, str]:
    """Return the tags of everything that a promotion creates.

    Parameters
    ----------
    promotion
        Its id.
    owner
        Who promotes; what no tag can hold becomes ``_``.
    region
        Region of the instances.
    """
    return {
        "Name": f"fruits-toolkit {promotion}",
        RUN_TAG: promotion,
        OWNER_TAG: _NOT_IN_TAGS.sub("_", owner)[:_LONGEST_TAG],
        REGION_TAG: region,
    }
