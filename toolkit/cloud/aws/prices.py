"""What AWS asks for machines, disks and traffic, each price with where it comes from.

On demand: from the Pricing API. Spot: from EC2's own history. Where the Pricing API can't be
reached or denies, a built-in table serves, which says of when it is; what that lacks has no price.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from toolkit.cloud.aws.account import AwsError, aws_errors
from toolkit.errors import JobError, RequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from toolkit.cloud.aws.account import AwsAccount

__all__ = ["COMPUTE_TYPES", "HOURS_PER_MONTH", "Price", "Prices", "Tariff", "UnreadablePriceError"]

HOURS_PER_MONTH = 730
"""Hours that a price per month stands for: 365 x 24 / 12, as AWS's own calculator has it."""

# The Pricing API is served in few regions; this one is the first, and knows the prices of all.
_PRICING_REGION = "us-east-1"
# A plan waits for it: two attempts, then the table.
_PRICING_ATTEMPTS = 2
_REQUESTS_AT_A_TIME = 8
# DescribeSpotPriceHistory knows the past 90 days; an answer from before is no price.
_SPOT_HISTORY = timedelta(days=90)

# The built-in table. Linux, on demand, shared tenancy, US dollars an hour of an xlarge (4 vCPU): in
# these families the price grows exactly with the size, 2, 4 and 8 times as much for a 2xlarge,
# 4xlarge and 8xlarge, as all sizes in the sources show.
# us-east-1: https://github.com/aws/karpenter-provider-aws at 265ee0b,
#   pkg/providers/pricing/zz_generated.pricing_aws.go, generated from the Pricing API.
# eu-west-1, eu-central-1: https://github.com/skypilot-org/skypilot-catalog at 27f67dd,
#   catalogs/v7/aws/vms.csv, made from the Pricing API. It has no date: of 2025, by the types that
#   it knows and those that it lacks. c7i is the same in the later catalogs/v8 at e385a0d.
_SIZES = {"xlarge": 1, "2xlarge": 2, "4xlarge": 4, "8xlarge": 8}
_XLARGE_USD_PER_HOUR = {
    "us-east-1": (
        "2026-02-09",
        {"c6a": 0.153, "c6i": 0.17, "c7a": 0.20528, "c7i": 0.1785, "m7i": 0.2016},
    ),
    "eu-west-1": (
        "2025",
        {"c6a": 0.16416, "c6i": 0.1824, "c7a": 0.22024, "c7i": 0.19152, "m7i": 0.2247},
    ),
    "eu-central-1": (
        "2025",
        {"c6a": 0.1746, "c6i": 0.194, "c7a": 0.23426, "c7i": 0.2037, "m7i": 0.2415},
    ),
}
# gp3, US dollars a GiB-month. eu-central-1: the Pricing API's EUC1-EBS:VolumeUsage.gp3 as quoted on
# 2026-08-26 in a public repository; the others: https://aws.amazon.com/ebs/pricing/ as transcribed
# in one on 2021-07-14, which has the same 0.0952 for eu-central-1.
_GP3_USD_PER_GIB_MONTH = {
    "us-east-1": ("2021-07-14", 0.08),
    "eu-west-1": ("2021-07-14", 0.088),
    "eu-central-1": ("2026-08-26", 0.0952),
}
# A public IPv4 address in use, US dollars an hour: the Pricing API's EUC1-PublicIPv4:InUseAddress,
# from the same quotation of 2026-08-26. All regions pay the same since February 2024.
_PUBLIC_IPV4 = ("2026-08-26", 0.005)
# S3's traffic to another region, US dollars a GB: skyplane/data/aws_transfer_costs.csv of
# https://github.com/skyplane-project/skyplane at 3b82dcc (2022). AWS's own article on access across
# regions says 0.02 from us-east-1 in January 2026, too:
# https://repost.aws/articles/ARjzluyMS8RbeOOK4MGXRG6Q
_TRANSFER_AS_OF = "2022"
_TRANSFER_USD_PER_GB = {"us-east-1": 0.02, "eu-west-1": 0.02, "eu-central-1": 0.02}
_NEAR_USD_PER_GB = {("us-east-1", "us-east-2"): 0.01}
_TRANSFER_TARGETS = frozenset(
    {
        "ap-northeast-1",
        "ap-northeast-2",
        "ap-south-1",
        "ap-southeast-1",
        "ap-southeast-2",
        "ca-central-1",
        "eu-central-1",
        "eu-north-1",
        "eu-south-1",
        "eu-west-1",
        "eu-west-2",
        "eu-west-3",
        "sa-east-1",
        "us-east-1",
        "us-east-2",
        "us-west-1",
        "us-west-2",
    }
)
# S3 Standard, US dollars a request: what docs/scaling.md quotes, of 2026-11-22.
_S3_PUT_USD = {"us-east-1": ("2026-11-22", 0.005 / 1000)}
_S3_GET_USD = {"us-east-1": ("2026-11-22", 0.0004 / 1000)}

COMPUTE_TYPES = tuple(
    f"{family}.{size}" for family in ("c7i", "c7a", "m7i", "c6i", "c6a") for size in _SIZES
)
"""Types worth comparing for a job that computes: those of the built-in table."""


class UnreadablePriceError(JobError):
    """The Pricing API answered something else than one clear price."""


@dataclass(frozen=True, slots=True)
class Price:
    """A price and where it comes from.

    Parameters
    ----------
    usd
        US dollars for one unit, above 0.
    unit
        ``hour``, ``GiB-month``, ``GB`` or ``request``.
    source
        ``Pricing API, 2026-11-10``, ``built-in table of 2026-02-09``,
        ``spot price in eu-west-1a of 2026-11-25``.
    """

    usd: float
    unit: str
    source: str


@dataclass(frozen=True, kw_only=True)
class Tariff:
    """All prices that a plan needs.

    Parameters
    ----------
    on_demand
        An hour of each type that has a price.
    spot
        An hour of each type by zone; empty where nobody asked or there is none.
    gp3
        A GiB-month of disk; None: unknown.
    public_ipv4
        An hour of a public address.
    s3_put, s3_get
        A PUT or LIST, and a GET; None: unknown.
    problem
        Why the built-in table serves; empty if all is from the Pricing API.
    """

    on_demand: Mapping[str, Price]
    spot: Mapping[str, Mapping[str, Price]] = field(default_factory=dict)
    gp3: Price | None = None
    public_ipv4: Price | None = None
    s3_put: Price | None = None
    s3_get: Price | None = None
    problem: str = ""

    def lowest_spot(self, instance_type: str) -> Price | None:
        """Return the price of the zone in which a spot instance of the type is cheapest."""
        zones = self.spot.get(instance_type, {})
        return min(zones.values(), key=lambda price: price.usd, default=None)


class Prices:
    """The prices of the account's region.

    Parameters
    ----------
    account
        Who asks. ``pricing:GetProducts`` is needed (without it the built-in table serves), and
        ``ec2:DescribeSpotPriceHistory`` for spot.
    """

    def __init__(self, account: AwsAccount) -> None:
        self._account = account
        self._cut_off = False
        self._problem = ""

    @property
    def problem(self) -> str:
        """Why the built-in table served, the first reason; empty if it did not have to."""
        return self._problem

    def tariff(self, types: Sequence[str], *, spot: bool = False) -> Tariff:
        """Return all prices that a plan with these instance types needs.

        Parameters
        ----------
        types
            Names of instance types.
        spot
            Ask for spot prices, too.

        Raises
        ------
        AwsError
            The spot prices can't be had; they have no substitute.
        """
        return Tariff(
            on_demand=self.on_demand(types),
            gp3=self.gp3(),
            public_ipv4=_built_in(_PUBLIC_IPV4, "hour"),
            s3_put=self._s3_requests("S3-API-Tier1", _S3_PUT_USD),
            s3_get=self._s3_requests("S3-API-Tier2", _S3_GET_USD),
            spot=self.spot(types) if spot else {},
            problem=self.problem,
        )

    def on_demand(self, types: Sequence[str]) -> dict[str, Price]:
        """Return the price of an hour of Linux on demand, of each type that has one here."""

        def price(name: str) -> Price | None:
            return self._ask(
                "AmazonEC2",
                {
                    "regionCode": self._account.region,
                    "instanceType": name,
                    "operatingSystem": "Linux",
                    "preInstalledSw": "NA",
                    "tenancy": "Shared",
                    "capacitystatus": "Used",
                },
                unit="Hrs",
                means="hour",
                otherwise=lambda: _built_in_type(self._account.region, name),
            )

        names = list(dict.fromkeys(types))
        with ThreadPoolExecutor(_REQUESTS_AT_A_TIME) as pool:
            # The first alone: if it can't be answered, the others are not asked.
            found = [price(name) for name in names[:1]]
            found += pool.map(price, names[1:])
        return {name: each for name, each in zip(names, found, strict=True) if each}

    def gp3(self) -> Price | None:
        """Return the price of a GiB-month of gp3 with the throughput that it has by itself."""
        return self._ask(
            "AmazonEC2",
            {
                "regionCode": self._account.region,
                "productFamily": "Storage",
                "volumeApiName": "gp3",
            },
            unit="GB-Mo",
            means="GiB-month",
            otherwise=lambda: _built_in(
                _GP3_USD_PER_GIB_MONTH.get(self._account.region), "GiB-month"
            ),
        )

    def transfer(self, source: str, target: str) -> Price | None:
        """Return the price of a GB from one region's S3 to another region; None: unknown.

        Raises
        ------
        ValueError
            They are the same region, within which S3's traffic is free.
        """
        if source == target:
            raise ValueError(f"traffic within {source} has no price")
        return self._ask(
            "AWSDataTransfer",
            {
                "fromRegionCode": source,
                "toRegionCode": target,
                "transferType": "InterRegion Outbound",
            },
            unit="GB",
            means="GB",
            otherwise=lambda: _built_in_transfer(source, target),
        )

    def spot(self, types: Sequence[str]) -> dict[str, dict[str, Price]]:
        """Return the present price of an hour of Linux on spot, by type and zone.

        Raises
        ------
        AwsError
            AWS refuses or does not answer.
        """
        now = datetime.now(UTC)
        newest: dict[tuple[str, str], Any] = {}
        with aws_errors(doing="ask for spot prices"):
            pages = self._account.client("ec2").get_paginator("describe_spot_price_history")
            # From now on: "It also returns the last price change before the start time".
            for page in pages.paginate(
                InstanceTypes=list(types), ProductDescriptions=["Linux/UNIX"], StartTime=now
            ):
                for entry in page["SpotPriceHistory"]:
                    key = entry["InstanceType"], entry["AvailabilityZone"]
                    if key not in newest or newest[key]["Timestamp"] < entry["Timestamp"]:
                        newest[key] = entry
        found: dict[str, dict[str, Price]] = {}
        for (name, zone), entry in sorted(newest.items()):
            if now - entry["Timestamp"] <= _SPOT_HISTORY:
                source = f"spot price in {zone} of {entry['Timestamp']:%Y-%m-%d}"
                price = Price(float(entry["SpotPrice"]), "hour", source)
                found.setdefault(name, {})[zone] = price
        return found

    def _s3_requests(self, group: str, table: Mapping[str, tuple[str, float]]) -> Price | None:
        return self._ask(
            "AmazonS3",
            {"regionCode": self._account.region, "productFamily": "API Request", "group": group},
            unit="Requests",
            means="request",
            otherwise=lambda: _built_in(table.get(self._account.region), "request"),
        )

    def _ask(
        self,
        service: str,
        attributes: Mapping[str, str],
        *,
        unit: str,
        means: str,
        otherwise: Callable[[], Price | None],
    ) -> Price | None:
        """Return a product's price: of the Pricing API, else of the built-in table, else None.

        None means, too, that the API answers and has no such product: what a region does not offer
        has no price there, whatever the table says.
        """
        if self._cut_off:
            return otherwise()
        try:
            products = self._products(service, attributes)
            return _price(products, attributes, unit=unit, means=means) if products else None
        except (AwsError, RequestError, UnreadablePriceError) as exc:
            self._problem = self._problem or exc.message
            # What AWS does not answer or not allow now, it will not at the next question.
            self._cut_off = self._cut_off or not isinstance(exc, UnreadablePriceError)
            return otherwise()

    def _products(self, service: str, attributes: Mapping[str, str]) -> list[str]:
        with aws_errors(doing="ask for prices"):
            client = self._account.client(
                "pricing", region=_PRICING_REGION, attempts=_PRICING_ATTEMPTS
            )
            pages = client.get_paginator("get_products").paginate(
                ServiceCode=service,
                FormatVersion="aws_v1",
                Filters=[
                    {"Type": "TERM_MATCH", "Field": name, "Value": value}
                    for name, value in attributes.items()
                ],
            )
            return [product for page in pages for product in page["PriceList"]]


def _price(
    products: Sequence[str], attributes: Mapping[str, str], *, unit: str, means: str
) -> Price:
    """Read the one price that all products have.

    Parameters
    ----------
    products
        Items of ``PriceList``, each a JSON document of its own.
    attributes
        What was asked for; a product with others is none of the answer.
    unit
        The API's name of the unit: ``Hrs``, ``GB-Mo``, ``GB``, ``Requests``.
    means
        Ours.

    Raises
    ------
    UnreadablePriceError
        The documents are not of the known form, or have no price or several.
    """
    try:
        read = [json.loads(product) for product in products]
        asked = [each for each in read if _answers(each, attributes)]
        # Services have their own entries for the same; what has no operation is the common one.
        common = [each for each in asked if not each["product"]["attributes"].get("operation")]
        found = {_usd(each, unit) for each in common or asked}
        published = {str(each["publicationDate"])[:10] for each in read}
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise _unreadable(attributes, f"{type(exc).__name__}: {exc}") from exc
    if len(found) != 1:
        prices = ", ".join(map(str, sorted(found))) or "no"
        raise _unreadable(attributes, f"{prices} prices a {means}")
    return Price(found.pop(), means, f"Pricing API, {max(published)}")


def _answers(product: dict[str, Any], attributes: Mapping[str, str]) -> bool:
    has = product["product"]["attributes"] | {"productFamily": product["product"]["productFamily"]}
    return all(has[name] == value for name, value in attributes.items())


def _usd(product: dict[str, Any], unit: str) -> float:
    """Return the price of the first unit on demand; ``ValueError`` if there is none."""
    (term,) = product["terms"]["OnDemand"].values()
    # Prices in steps begin at 0; those of a plan never reach the next.
    (first,) = [each for each in term["priceDimensions"].values() if each["beginRange"] == "0"]
    usd = float(first["pricePerUnit"]["USD"])
    if first["unit"] != unit or not usd > 0:
        raise ValueError(f"{usd} US dollars for {first['unit']}")
    return usd


def _unreadable(attributes: Mapping[str, str], why: str) -> UnreadablePriceError:
    asked = ", ".join(f"{name} {value}" for name, value in attributes.items())
    return UnreadablePriceError(f"The Pricing API's answer for {asked} can't be read: {why}.")


def _built_in(entry: tuple[str, float] | None, unit: str) -> Price | None:
    return Price(entry[1], unit, f"built-in table of {entry[0]}") if entry else None


def _built_in_type(region: str, instance_type: str) -> Price | None:
    family, _, size = instance_type.partition(".")
    as_of, families = _XLARGE_USD_PER_HOUR.get(region, ("", {}))
    if family not in families or size not in _SIZES:
        return None
    return _built_in((as_of, families[family] * _SIZES[size]), "hour")


def _built_in_transfer(source: str, target: str) -> Price | None:
    usd = _NEAR_USD_PER_GB.get((source, target), _TRANSFER_USD_PER_GB.get(source))
    if usd is None or target not in _TRANSFER_TARGETS:
        return None
    return _built_in((_TRANSFER_AS_OF, usd), "GB")
