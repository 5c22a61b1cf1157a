"""The estimate of a promoted run: the model's figures."""

from __future__ import annotations

import os
from dataclasses import replace

import psutil
import pytest

from toolkit.cloud.aws.prices import Price, Tariff
from toolkit.cloud.estimate import (
    FIXED_SECONDS,
    InstanceType,
    MeasuredRate,
    Work,
    estimate,
    memory_needed,
    physical_cores,
)
from toolkit.runs import Owner, RunRecord

C7I = InstanceType("c7i.2xlarge", vcpus=8, cores=4, memory_mib=16384, architecture="x86_64")
C7I_LARGE = InstanceType("c7i.8xlarge", vcpus=32, cores=16, memory_mib=65536, architecture="x86_64")
T3 = InstanceType(
    "t3.micro", vcpus=2, cores=1, memory_mib=1024, architecture="x86_64", burstable=True
)
RATE = MeasuredRate(images_per_second=100.0, cores=2, seconds=60.0, precision="f32")
WORK = Work(images=120_000, dimensions=1280, model_mib=17, setup_minutes=5)
TARIFF = Tariff(
    on_demand={
        "c7i.2xlarge": Price(0.4, "hour", "tests"),
        "c7i.8xlarge": Price(1.6, "hour", "tests"),
        "t3.micro": Price(0.01, "hour", "tests"),
    },
    spot={
        "c7i.2xlarge": {
            "a": Price(0.3, "hour", "tests"),
            "b": Price(0.2, "hour", "tests"),
        },
        "c7i.8xlarge": {"a": Price(0.1, "hour", "tests")},
    },
    gp3=Price(0.073, "GiB-month", "tests"),
    public_ipv4=Price(0.005, "hour", "tests"),
    s3_put=Price(5e-6, "request", "tests"),
    s3_get=Price(4e-7, "request", "tests"),
)


def one(work: Work = WORK, instance: InstanceType = C7I, **changes):
    (row,) = estimate(work, [instance], **({"rate": RATE, "tariff": TARIFF} | changes))
    return row


def test_time_is_that_of_the_stated_model() -> None:
    # 50 images/s a core here, 4 cores there: 600 s; listing 115 us a key.
    pca = 120_000 * 1280**2 / (2 * 4 * 2e10)
    seconds = 5 * 60 + FIXED_SECONDS + 120_000 * 115e-6 + 600 + pca
    assert one().minutes.expected == pytest.approx(seconds / 60)


def test_bounds_are_a_processor_twice_and_half_as_fast() -> None:
    minutes = one().minutes
    assert minutes.least < minutes.expected < minutes.most
    computing = minutes.most - minutes.expected
    assert minutes.expected - minutes.least == pytest.approx(computing / 2)
    assert computing == pytest.approx(10, rel=0.01)


def test_measured_long_run_is_predicted_by_its_own_rate() -> None:
    # docs/scaling.md: 100,000 images, 170 images/s a core, two cores, took 306 s.
    machine = InstanceType("here", vcpus=2, cores=2, memory_mib=24064, architecture="x86_64")
    rate = MeasuredRate(images_per_second=340, cores=2, seconds=294, precision="f32")
    work = Work(images=100_000, dimensions=1280, model_mib=17, setup_minutes=0)
    assert one(work, machine, rate=rate).minutes.expected * 60 == pytest.approx(306, rel=0.05)


def test_more_cores_and_more_nodes_take_less_time() -> None:
    small, large = one(), one(instance=C7I_LARGE)
    four = one(replace(WORK, nodes=4))
    assert large.minutes.expected < small.minutes.expected
    assert four.minutes.expected == pytest.approx(large.minutes.expected)


def test_few_images_do_not_fill_all_cores() -> None:
    work = replace(WORK, images=96)  # four parts
    assert one(work, C7I_LARGE).minutes == one(work, C7I).minutes


def test_costs_are_those_of_all_nodes_disks_addresses_and_requests() -> None:
    row = one(replace(WORK, nodes=2, volume_gib=100))
    hours = row.minutes.expected / 60
    machines = 2 * hours * (0.4 + 0.005 + 0.073 * 100 / 730)
    parts = 120_000 / 96
    requests = (120_000 + 2 * parts) * 4e-7 + (parts + parts / 64 + 120) * 5e-6
    assert row.usd.expected == pytest.approx(machines + requests)
    assert row.usd.least < row.usd.expected < row.usd.most


def test_spot_is_that_of_the_cheapest_zone() -> None:
    row = one()
    assert row.spot.usd == 0.2
    assert row.usd_spot.expected < row.usd.expected


def test_a_minute_is_paid_at_the_least() -> None:
    row = one(Work(images=1, dimensions=1280, model_mib=17, setup_minutes=0))
    assert row.minutes.expected < 1
    assert row.usd.expected >= 0.4 / 60


def test_cheapest_comes_first_and_what_can_not_be_taken_last() -> None:
    types = [T3, C7I_LARGE, C7I, InstanceType("c9z.huge", 8, 4, 16384, "x86_64")]
    rows = estimate(WORK, types, rate=RATE, tariff=TARIFF)
    assert [row.instance.name for row in rows][2:] == ["c9z.huge", "t3.micro"]
    costs = [row.usd.expected for row in rows[:2]]
    assert costs == sorted(costs)
    assert any("price" in note for note in rows[2].notes)
    by_spot = estimate(WORK, types, rate=RATE, tariff=TARIFF, spot=True)
    assert by_spot[0].instance.name == "c7i.8xlarge"


def test_too_little_memory_for_the_network_is_a_problem() -> None:
    assert "1 GiB of memory is too little" in one(instance=T3).problem
    assert one().problem == ""
    huge = replace(WORK, model_mib=2000)
    assert one(huge).problem
    assert memory_needed(8, 2000) > 0.75 * C7I.memory_mib


def test_without_a_measurement_there_are_prices_but_no_times() -> None:
    rows = estimate(WORK, [C7I_LARGE, C7I], rate=None, tariff=TARIFF)
    assert [row.instance.name for row in rows] == ["c7i.2xlarge", "c7i.8xlarge"]
    for row in rows:
        assert row.minutes is row.usd is row.usd_spot is None
        assert row.on_demand.usd > 0
        assert any("toolkit run" in note for note in row.notes)


@pytest.mark.parametrize(
    ("rate", "note"),
    [
        (replace(RATE, seconds=4.0), "4 s only"),
        (replace(RATE, precision="bf16"), "bf16"),
    ],
)
def test_what_makes_the_measurement_doubtful_is_said(rate: MeasuredRate, note: str) -> None:
    assert not any(note in each for each in one().notes)
    assert any(note in each for each in one(rate=rate).notes)


def test_precision_that_the_node_may_lack_widens_the_bound() -> None:
    assert one(rate=replace(RATE, precision="int8")).minutes.most > one().minutes.most


def test_unknown_prices_are_named_and_left_out() -> None:
    row = one(tariff=Tariff(on_demand=TARIFF.on_demand))
    assert row.usd.expected == pytest.approx(0.4 * row.minutes.expected / 60)
    (note,) = [each for each in row.notes if "Not in the costs" in each]
    assert "disk" in note
    assert "S3's requests" in note


def test_burstable_and_arm_are_warned_of() -> None:
    assert any("slowed down" in note for note in one(instance=T3).notes)
    arm = replace(C7I, architecture="arm64")
    assert any("arm64" in note for note in one(instance=arm).notes)


@pytest.mark.parametrize("wrong", [{"images": 0}, {"nodes": 0}])
def test_no_work_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="no work"):
        one(replace(WORK, **wrong))


def record(**changes) -> RunRecord:
    return replace(
        RunRecord(
            run_id="20261125-120000-000aa",
            status="done",
            profile="local",
            images="s3a://fruits/images",
            model="EfficientNetLite0",
            weights="imagenet",
            weights_sha256="0" * 64,
            random_weights=False,
            engine="openvino",
            precision="f32",
            fingerprint="0" * 16,
            owner=Owner.this_process(),
            started_at="2026-11-25T12:00:00+00:00",
            seconds={"features": 30.0},
            images_per_second=333.7,
        ),
        **changes,
    )


def test_rate_is_that_of_a_finished_run_that_computed() -> None:
    assert MeasuredRate.of(record(), cores=2) == MeasuredRate(
        images_per_second=333.7, cores=2, seconds=30.0, precision="f32"
    )
    assert MeasuredRate.of(record(status="failed"), cores=2) is None
    assert MeasuredRate.of(record(images_per_second=None), cores=2) is None


def test_hyperthreads_of_this_machine_count_once() -> None:
    cores = physical_cores()
    assert 1 <= cores <= len(os.sched_getaffinity(0))
    if len(os.sched_getaffinity(0)) == psutil.cpu_count():
        assert cores == psutil.cpu_count(logical=False)
