"""The shell script that an instance starts with: what EC2 gets as user-data."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from importlib.resources import files

from toolkit.cloud.bundle import BUNDLES, MANIFEST, PROMOTIONS
from toolkit.cloud.job import NODE_FOLDER
from toolkit.cloud.node.log import CHUNK_BYTES
from toolkit.cloud.status import BOOT_STAGE

__all__ = ["LARGEST", "NodeBoot", "user_data"]

LARGEST = 16_384
"""Bytes of user-data that EC2 takes, before it is encoded.

https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-add-user-data.html
"""

_TEMPLATE = "user_data.sh"


@dataclass(frozen=True, kw_only=True)
class NodeBoot:
    """What the boot script of a node has to know. None of it is a secret.

    Parameters
    ----------
    bucket, region
        Bucket of the bundle and of the promotion, and its AWS region.
    promotion_id
        The promotion.
    bundle
        SHA-256 of the bundle's manifest, hexadecimal.
    dead_man_minutes
        Minutes after which the machine goes off, whatever runs; at least 1.
    """

    bucket: str
    region: str
    promotion_id: str
    bundle: str
    dead_man_minutes: int


def user_data(boot: NodeBoot) -> str:
    """Return the script.

    Raises
    ------
    ValueError
        A value is not of the form that it has to be of, or the script is too long for EC2.
    """
    if boot.dead_man_minutes < 1:
        raise ValueError(f"A node can't go off after {boot.dead_man_minutes} minutes.")
    values = {
        "bucket": boot.bucket,
        "region": boot.region,
        "promotion": boot.promotion_id,
        "bundle": boot.bundle,
        "minutes": str(boot.dead_man_minutes),
        "chunk_bytes": str(CHUNK_BYTES),
        "home": NODE_FOLDER,
        "bundles": BUNDLES,
        "promotions": PROMOTIONS,
        "manifest": MANIFEST,
    }
    for name, value in values.items():
        # Names and numbers need no quotes; what does is none.
        if shlex.quote(value) != value:
            raise ValueError(f"{value!r} is no {name}.")
    script = files("toolkit.cloud.node").joinpath(_TEMPLATE).read_text(encoding="utf-8")
    for name, value in (values | {"stage": BOOT_STAGE}).items():
        script = script.replace(f"@{name}@", value)
    if len(script.encode()) > LARGEST:
        raise ValueError(f"The boot script has {len(script.encode())} bytes; EC2 takes {LARGEST}.")
    return script
