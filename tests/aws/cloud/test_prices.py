"""Prices: boto3's real client and the parser, on a server that answers as the Pricing API does.

moto has no Pricing. The form of the documents is that of recorded answers of ``GetProducts``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from toolkit.cloud.aws.account import AwsAccount, AwsError
from toolkit.cloud.aws.prices import COMPUTE_TYPES, Prices

REGION = "eu-west-1"
AMZ_JSON = "application/x-amz-json-1.1"


def reply(body: dict, status: int = 200) -> SimpleNamespace:
    return SimpleNamespace(body=json.dumps(body), status=status, type=AMZ_JSON)


@dataclass
class Product:
    """An item of a price list."""

    attributes: dict[str, str]
    usd: str
    unit: str = "Hrs"
    family: str = "Compute Instance"
    sku: str = "7RFUEP9XE7QPFUGE"
    more_steps: tuple[str, ...] = ()
    currency: str = "USD"
    terms: dict = field(default_factory=dict)

    def json(self) -> str:
        term = f"{self.sku}.JRTCKXETXF"
        begins = ["0", *map(str, range(10240, 10240 * (len(self.more_steps) + 1), 10240))]
        dimensions = {
            f"{term}.{number}": {
                "unit": self.unit,
                "beginRange": begin,
                "endRange": "Inf",
                "description": f"${usd} per {self.unit}",
                "appliesTo": [],
                "rateCode": f"{term}.{number}",
                "pricePerUnit": {self.currency: usd},
            }
            for number, (begin, usd) in enumerate(
                zip(begins, (self.usd, *self.more_steps), strict=True)
            )
        }
        reserved = f"{self.sku}.CUZHX8X6JH"
        return json.dumps(
            {
                "product": {
                    "productFamily": self.family,
                    "attributes": self.attributes,
                    "sku": self.sku,
                },
                "serviceCode": "AmazonEC2",
                "terms": {
                    "OnDemand": {
                        term: {
                            "priceDimensions": dimensions,
                            "sku": self.sku,
                            "effectiveDate": "2026-11-01T00:00:00Z",
                            "offerTermCode": "JRTCKXETXF",
                            "termAttributes": {},
                        }
                    },
                    "Reserved": {
                        reserved: {
                            "priceDimensions": {
                                f"{reserved}.2TG2D8R56U": {
                                    "unit": "Quantity",
                                    "description": "Upfront Fee",
                                    "appliesTo": [],
                                    "pricePerUnit": {"USD": "43"},
                                }
                            },
                            "sku": self.sku,
                            "effectiveDate": "2017-10-31T23:59:59Z",
                            "offerTermCode": "CUZHX8X6JH",
                            "termAttributes": {"LeaseContractLength": "1yr"},
                        }
                    },
                }
                | self.terms,
                "version": "20261110194711",
                "publicationDate": "2026-11-10T19:47:11Z",
            }
        )


def linux(instance_type: str, usd: str, **changes) -> Product:
    return Product(
        {
            "instanceType": instance_type,
            "regionCode": REGION,
            "operatingSystem": "Linux",
            "preInstalledSw": "NA",
            "tenancy": "Shared",
            "capacitystatus": "Used",
            "usagetype": f"EU-BoxUsage:{instance_type}",
            "operation": "RunInstances",
            "vcpu": "8",
        },
        usd,
        **changes,
    )


GP3 = Product(
    {"regionCode": REGION, "volumeApiName": "gp3", "usagetype": "EU-EBS:VolumeUsage.gp3"},
    "0.0880000000",
    unit="GB-Mo",
    family="Storage",
)


@pytest.fixture
def pricing(answering):
    """Return a function that lets the Pricing API sell products; it heeds filters."""

    def sell(*products: Product):
        def answer(request: str) -> SimpleNamespace:
            filters = {each["Field"]: each["Value"] for each in json.loads(request)["Filters"]}
            fitting = [
                each.json()
                for each in products
                if filters.items() <= (each.attributes | {"productFamily": each.family}).items()
            ]
            return reply({"FormatVersion": "aws_v1", "PriceList": fitting})

        return answering("pricing", answer)

    return sell


def prices() -> Prices:
    return Prices(AwsAccount(REGION))


def test_an_hour_on_demand_is_what_the_pricing_api_says(pricing) -> None:
    server = pricing(linux("c7i.2xlarge", "0.3830400000"), linux("c6i.2xlarge", "0.3648000000"))
    asked = prices()
    found = asked.on_demand(["c7i.2xlarge", "c6i.2xlarge"])
    assert [found[name].usd for name in ("c7i.2xlarge", "c6i.2xlarge")] == [0.38304, 0.3648]
    assert found["c7i.2xlarge"].unit == "hour"
    assert found["c7i.2xlarge"].source == "Pricing API, 2026-11-10"
    assert asked.problem == ""
    request = json.loads(server.requests[0])
    assert request["ServiceCode"] == "AmazonEC2"
    assert {"Type": "TERM_MATCH", "Field": "regionCode", "Value": REGION} in request["Filters"]


def test_pricing_is_asked_in_the_region_that_serves_it(pricing) -> None:
    pricing()
    account = AwsAccount(REGION)
    Prices(account).gp3()
    (client,) = account._clients.values()
    assert client.meta.region_name == "us-east-1"


def test_all_pages_are_read(answering) -> None:
    def answer(request: str) -> SimpleNamespace:
        if "NextToken" in json.loads(request):
            return reply({"PriceList": [linux("c7i.xlarge", "0.2").json()]})
        return reply({"PriceList": [], "NextToken": "more"})

    answering("pricing", answer)
    assert prices().on_demand(["c7i.xlarge"])["c7i.xlarge"].usd == 0.2


def test_type_that_the_region_does_not_offer_has_no_price(pricing) -> None:
    pricing(linux("c7i.2xlarge", "0.38304"))
    asked = prices()
    assert list(asked.on_demand(["c7a.2xlarge", "c7i.2xlarge"])) == ["c7i.2xlarge"]
    assert asked.problem == ""


def test_table_serves_and_says_its_date_where_the_api_denies(answering) -> None:
    denial = {
        "__type": "AccessDeniedException",
        "Message": "User: arn:aws:iam::123456789012:user/alice is not authorized to perform: "
        "pricing:GetProducts because no identity-based policy allows it",
    }
    server = answering("pricing", lambda _: reply(denial, status=400))
    asked = prices()
    found = asked.on_demand(COMPUTE_TYPES)
    assert found["c7i.2xlarge"].usd == pytest.approx(0.38304)
    assert found["c7i.2xlarge"].source == "built-in table of 2025"
    assert set(found) == set(COMPUTE_TYPES)
    assert "pricing:GetProducts" in asked.problem
    assert len(server.requests) == 1  # what is denied once is not asked for twenty times


def test_table_serves_where_nobody_answers(aws_keys) -> None:
    asked = Prices(AwsAccount("us-east-1"))
    tariff = asked.tariff(["c7i.2xlarge", "x99.large"])
    assert tariff.on_demand["c7i.2xlarge"].source == "built-in table of 2026-02-09"
    assert list(tariff.on_demand) == ["c7i.2xlarge"]
    assert tariff.gp3.usd == 0.08
    assert tariff.s3_get.usd == pytest.approx(0.0004 / 1000)
    assert "Could not ask for prices" in tariff.problem


def test_table_has_no_price_of_a_region_that_it_does_not_know(aws_keys) -> None:
    tariff = Prices(AwsAccount("ap-south-2")).tariff(["c7i.2xlarge"])
    assert tariff.on_demand == {}
    assert tariff.gp3 is None


def test_motos_missing_pricing_is_no_dead_end(moto) -> None:
    asked = Prices(moto.account())
    assert asked.on_demand(["c7i.2xlarge"])["c7i.2xlarge"].source == "built-in table of 2025"
    assert asked.problem


@pytest.mark.parametrize(
    "documents",
    [
        ["<html>"],
        [json.dumps({"product": {}})],
        [linux("c7i.2xlarge", "0.38304", terms={"OnDemand": {}}).json()],
        [linux("c7i.2xlarge", "0.38304", currency="CNY").json()],
        [linux("c7i.2xlarge", "0.38304", unit="Quantity").json()],
        [linux("c7i.2xlarge", "0.0000000000").json()],
        [linux("c7i.2xlarge", "much").json()],
        [linux("c7i.2xlarge", "0.38304").json(), linux("c7i.2xlarge", "0.4").json()],
        [linux("c6i.2xlarge", "0.3648").json()],
    ],
    ids=["text", "empty", "no-term", "yuan", "upfront", "free", "word", "two", "another-type"],
)
def test_unclear_answer_is_not_taken_for_a_price(answering, documents: list[str]) -> None:
    def answer(request: str) -> SimpleNamespace:
        if "c7i.2xlarge" in request:
            return reply({"PriceList": documents})
        return reply({"PriceList": [linux("c7i.xlarge", "0.2").json()]})

    answering("pricing", answer)
    asked = prices()
    found = asked.on_demand(["c7i.2xlarge", "c7i.xlarge"])
    assert found["c7i.2xlarge"].source == "built-in table of 2025"
    assert found["c7i.xlarge"].usd == 0.2  # the next question is asked all the same
    assert "c7i.2xlarge" in asked.problem


def test_disk_is_paid_by_the_month(pricing) -> None:
    pricing(GP3)
    found = prices().gp3()
    assert (found.usd, found.unit) == (0.088, "GiB-month")


def test_transfer_is_the_common_one_at_its_first_step(pricing) -> None:
    pair = {
        "fromRegionCode": REGION,
        "toRegionCode": "us-east-1",
        "transferType": "InterRegion Outbound",
        "usagetype": "EU-USE1-AWS-Out-Bytes",
    }
    pricing(
        Product(
            pair | {"operation": ""},
            "0.0300000000",  # not what the table has
            unit="GB",
            family="Data Transfer",
            more_steps=("0.01",),
        ),
        Product(pair | {"operation": "TGWPeering-Out"}, "0.05", unit="GB", family="Data Transfer"),
    )
    found = prices().transfer(REGION, "us-east-1")
    assert (found.usd, found.unit, found.source) == (0.03, "GB", "Pricing API, 2026-11-10")


def test_transfer_falls_back_to_what_is_known_of_the_pair(aws_keys) -> None:
    asked = prices()
    assert asked.transfer("us-east-1", "us-east-2").usd == 0.01
    assert asked.transfer("eu-west-1", "eu-central-1").source == "built-in table of 2022"
    assert asked.transfer("ap-south-1", "eu-west-1") is None
    assert asked.transfer("eu-west-1", "mars-north-1") is None
    with pytest.raises(ValueError, match="no price"):
        asked.transfer(REGION, REGION)


def test_tariff_has_requests_disk_and_address(pricing) -> None:
    requests = {
        group: Product(
            {"regionCode": REGION, "group": group, "operation": ""},
            usd,
            unit="Requests",
            family="API Request",
        )
        for group, usd in {"S3-API-Tier1": "0.0000050000", "S3-API-Tier2": "0.0000004000"}.items()
    }
    pricing(linux("c7i.2xlarge", "0.38304"), GP3, *requests.values())
    tariff = prices().tariff(["c7i.2xlarge"])
    assert (tariff.s3_put.usd, tariff.s3_get.usd) == (5e-6, 4e-7)
    assert tariff.gp3.usd == 0.088
    assert tariff.public_ipv4.usd == 0.005
    assert tariff.spot == {}
    assert tariff.problem == ""


@pytest.mark.parametrize(
    ("region", "instance_type", "usd"),
    [  # sizes that the sources have and the table computes
        ("us-east-1", "c7i.8xlarge", 1.428),
        ("us-east-1", "c7a.4xlarge", 0.82112),
        ("us-east-1", "c6a.8xlarge", 1.224),
        ("us-east-1", "m7i.8xlarge", 1.6128),
        ("eu-west-1", "c6a.2xlarge", 0.32832),
        ("eu-west-1", "c7a.2xlarge", 0.44048),
        ("eu-central-1", "c6a.2xlarge", 0.3492),
        ("eu-central-1", "c7a.2xlarge", 0.46852),
        ("eu-central-1", "m7i.xlarge", 0.2415),
    ],
)
def test_table_agrees_with_its_sources(
    aws_keys, region: str, instance_type: str, usd: float
) -> None:
    found = Prices(AwsAccount(region)).on_demand([instance_type])
    assert found[instance_type].usd == pytest.approx(usd)


def spot_history(*entries: tuple[str, str, datetime, str]) -> SimpleNamespace:
    items = "".join(
        f"<item><instanceType>{name}</instanceType><availabilityZone>{zone}</availabilityZone>"
        f"<productDescription>Linux/UNIX</productDescription><spotPrice>{usd}</spotPrice>"
        f"<timestamp>{when:%Y-%m-%dT%H:%M:%S}.000Z</timestamp></item>"
        for name, zone, when, usd in entries
    )
    body = (
        '<DescribeSpotPriceHistoryResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">'
        f"<requestId>request-1</requestId><spotPriceHistorySet>{items}</spotPriceHistorySet>"
        "<nextToken/></DescribeSpotPriceHistoryResponse>"
    )
    return SimpleNamespace(body=body, status=200, type="text/xml")


def test_spot_price_is_the_newest_of_each_zone(answering) -> None:
    now = datetime.now(UTC)
    history = spot_history(
        ("c7i.2xlarge", "eu-west-1a", now - timedelta(hours=9), "0.1500"),
        ("c7i.2xlarge", "eu-west-1a", now - timedelta(hours=1), "0.1700"),
        ("c7i.2xlarge", "eu-west-1b", now - timedelta(days=3), "0.1600"),
        ("c7i.xlarge", "eu-west-1b", now - timedelta(days=91), "0.0100"),
    )
    server = answering("ec2", lambda _: history)
    asked = prices()
    found = asked.spot(["c7i.2xlarge", "c7i.xlarge"])
    assert {zone: price.usd for zone, price in found["c7i.2xlarge"].items()} == {
        "eu-west-1a": 0.17,
        "eu-west-1b": 0.16,
    }
    assert "c7i.xlarge" not in found  # older than the history that EC2 keeps: no price
    when = f"{now - timedelta(days=3):%Y-%m-%d}"
    assert found["c7i.2xlarge"]["eu-west-1b"].source == f"spot price in eu-west-1b of {when}"
    assert "InstanceType.2=c7i.xlarge" in server.requests[0]
    assert asked.tariff(["c7i.2xlarge"], spot=True).lowest_spot("c7i.2xlarge").usd == 0.16


def test_motos_spot_prices_of_2006_are_none(moto) -> None:
    assert Prices(moto.account()).spot(["c5.large"]) == {}


def test_spot_prices_have_no_substitute(refusing) -> None:
    refusing("ec2", "UnauthorizedOperation", "You are not authorized.", status=403)
    with pytest.raises(AwsError, match="spot prices"):
        prices().spot(["c7i.2xlarge"])
