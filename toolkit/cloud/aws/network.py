"""The subnets that nodes can be started in, and whether the internet is reached from there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from toolkit.cloud.aws.account import AccessDeniedError, aws_errors
from toolkit.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from toolkit.cloud.aws.account import AwsAccount

__all__ = ["Route", "Subnet", "Zone", "find_subnets"]

Route = Literal["internet gateway", "NAT gateway", "other", "none", "unknown"]
"""Where traffic to the internet goes; ``other``: to a device of the network's owner."""

_EVERYWHERE = "0.0.0.0/0"


@dataclass(frozen=True, slots=True)
class Subnet:
    """A subnet that there is.

    Attributes
    ----------
    id, zone, vpc
        Its id, its availability zone, and the id of the VPC that it is part of.
    free_addresses
        Number of private addresses that instances can still get.
    public_addresses
        Whether instances get a public address there, too.
    route
        Where traffic to the internet goes; ``unknown`` where that may not be asked.
    """

    id: str
    zone: str
    vpc: str
    free_addresses: int
    public_addresses: bool
    route: Route

    def __str__(self) -> str:
        return f"{self.id} in {self.zone}"


@dataclass(frozen=True, slots=True)
class Zone:
    """An availability zone, and the subnet of a VPC in which instances can be started there."""

    name: str
    subnet: str
    vpc: str


def find_subnets(account: AwsAccount, subnet: str | None = None) -> tuple[Subnet, ...]:
    """Return the subnet named, or those of the default VPC, one a zone, in order of the zones.

    Raises
    ------
    RequestError
        There is no such subnet, or no default VPC.
    AwsError
        AWS refuses to tell, or does not answer.
    """
    described = _named(account, subnet) if subnet else _default(account)
    tables = _route_tables(account, sorted({each["VpcId"] for each in described}))
    found = (
        Subnet(
            id=each["SubnetId"],
            zone=each["AvailabilityZone"],
            vpc=each["VpcId"],
            free_addresses=each["AvailableIpAddressCount"],
            public_addresses=each["MapPublicIpOnLaunch"],
            route="unknown" if tables is None else _route(each["SubnetId"], tables),
        )
        for each in described
    )
    return tuple(sorted(found, key=lambda each: each.zone))


def _named(account: AwsAccount, subnet: str) -> list[dict[str, Any]]:
    found = _described(account, {"subnet-id": subnet})
    if not found:
        raise RequestError(
            f"There is no subnet {subnet} in {account.region}.",
            remedy="Name one of this region in the setting aws.subnet (TOOLKIT_AWS__SUBNET), or "
            "leave it out: then it is one of the default VPC.",
        )
    return found


def _default(account: AwsAccount) -> list[dict[str, Any]]:
    found = _described(account, {"default-for-az": "true"})  # only a default VPC has such
    if not found:
        raise RequestError(
            f"There is no default VPC with a subnet in {account.region}.",
            remedy="Name a subnet in the setting aws.subnet (TOOLKIT_AWS__SUBNET), or create the "
            f"VPC: `aws ec2 create-default-vpc --region {account.region}`.",
        )
    return found


def _described(account: AwsAccount, filters: dict[str, str]) -> list[dict[str, Any]]:
    with aws_errors(doing="look up the subnets"):
        pages = account.client("ec2").get_paginator("describe_subnets")
        asked = pages.paginate(Filters=[{"Name": k, "Values": [v]} for k, v in filters.items()])
        return [subnet for page in asked for subnet in page["Subnets"]]


def _route_tables(account: AwsAccount, vpcs: Sequence[str]) -> list[dict[str, Any]] | None:
    """Return the route tables of the VPCs; None if this account may not see them."""
    try:
        with aws_errors(doing="look up the routes of the network"):
            pages = account.client("ec2").get_paginator("describe_route_tables")
            asked = pages.paginate(Filters=[{"Name": "vpc-id", "Values": list(vpcs)}])
            return [table for page in asked for table in page["RouteTables"]]
    except AccessDeniedError:
        return None


def _route(subnet: str, tables: Iterable[dict[str, Any]]) -> Route:
    """Say where a subnet's traffic to the internet goes.

    That stands in the route table that the subnet is associated with, else in the main one of its
    VPC: https://docs.aws.amazon.com/vpc/latest/userguide/VPC_Route_Tables.html
    """
    own, main = None, None
    for table in tables:
        for association in table.get("Associations", []):
            if association.get("SubnetId") == subnet:
                own = table
            elif association.get("Main"):
                main = table
    for route in (own or main or {}).get("Routes", []):
        if route.get("DestinationCidrBlock") != _EVERYWHERE or route.get("State") == "blackhole":
            continue
        if route.get("NatGatewayId"):
            return "NAT gateway"
        return "internet gateway" if route.get("GatewayId", "").startswith("igw-") else "other"
    return "none"
