"""The plan of a promotion: what is chosen, what else there is, what it costs at the most."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tests.support.launches import IDENTITY, image, zones
from toolkit.cloud.aws.prices import Price
from toolkit.cloud.estimate import MeasuredRate, instance_types
from toolkit.cloud.plan import COLUMNS, created, make_plan, notes, rows
from toolkit.cloud.preflight import Facts
from toolkit.profiles import load_profile

ID = "20261125-101500-123ab"
RATE = MeasuredRate(images_per_second=100.0, cores=2, seconds=60.0, precision="f32")


@pytest.fixture
def plan(account, model):
    """Return a function that plans a job of 100,000 images."""

    def make(*, rate=RATE, transfer=None, **settings):
        aws = load_profile("aws", options={"aws": settings}).aws
        chosen = aws.instance_type
        facts = Facts(
            identity=IDENTITY,
            region=account.region,
            bucket="orchard",
            bucket_region=account.region,
            instance_type=instance_types(account, [chosen])[chosen],
            image=image(account),
            zones=zones(account),
            transfer=transfer,
        )
        source = SimpleNamespace(listing=Listing(2_000_000_000), folder=None)
        return make_plan(
            account,
            ID,
            facts=facts,
            settings=aws,
            source=source,
            model=model,
            model_bytes=17_000_000,
            bundle_bytes=20_000_000,
            rate=rate,
        )

    return make


class Listing:
    def __init__(self, size: int) -> None:
        self.bytes = size

    def __len__(self) -> int:
        return 100_000


def test_chosen_type_comes_first_and_the_others_are_cheaper_or_faster(plan):
    made = plan()
    assert made.chosen.instance.name == "c7i.2xlarge"
    minutes = [row.minutes.expected for row in made.others]
    costs = [row.usd.expected for row in made.others]
    assert costs == sorted(costs)
    assert minutes == sorted(minutes, reverse=True)
    assert all(len(row) == len(COLUMNS) for row in rows(made))


def test_types_that_are_tried_instead_are_alike_and_hardly_dearer(plan):
    made = plan()
    priced = made.tariff.on_demand
    assert made.fallbacks
    for name in made.fallbacks:
        assert name.endswith(".2xlarge")
        assert priced[name].usd <= 1.25 * priced["c7i.2xlarge"].usd
    assert made.types[0] == "c7i.2xlarge"


def test_node_goes_off_after_twice_the_longest_time_at_the_earliest(plan):
    made = plan()
    assert made.dead_man_minutes >= 2 * made.chosen.minutes.most
    dearest = max(made.tariff.on_demand[name].usd for name in made.types)
    hourly = dearest + made.tariff.public_ipv4.usd
    assert made.most_usd == pytest.approx(hourly * made.dead_man_minutes / 60)
    assert made.most_usd > made.usd.most


def test_given_hours_are_kept_to(plan):
    assert plan(max_hours=1.5).dead_man_minutes == 90


def test_without_a_measurement_there_are_prices_and_no_times(plan):
    made = plan(rate=None)
    assert (made.usd, made.dead_man_minutes) == (None, 480)
    assert rows(made)[0][3:6] == ("0.3830", "?", "?")
    assert any("toolkit run" in note for note in notes(made))


def test_plan_names_all_that_will_be_there(plan):
    told = dict(created(plan(nodes=3, max_hours=2)))
    name = f"fruits-toolkit-{ID}"
    assert told["nodes"].startswith("3 x c7i.2xlarge, on demand")
    assert name in told["network"]
    assert name in told["rights"]
    assert ID in told["secret"]
    assert "goes off after 2.0 h" in told["at the most"]


def test_way_between_regions_is_priced(plan):
    made = plan(transfer=Price(0.02, "GB", "tests"))
    assert made.transfer_usd == pytest.approx(0.04)
    assert dict(created(made))["between regions"].startswith("0.04 USD")


def test_price_says_where_it_is_from(plan):
    assert any("built-in table of 2025" in note for note in notes(plan()))
