"""How long a promoted run will take, and what it will cost, for several instance types.

The model, in seconds, for N images on n nodes:

    T = 60 setup                          a node from its start to the job; an input, measured apart
      + FIXED_SECONDS                     Spark's session, the network's loading, the last writes
      + N (LIST_SECONDS + KEY_SECONDS)    listing, in one thread
      + N / (r C)                         features: r images/s of a core, measured on this machine
      + N d^2 / (2 C SCATTER_RATE)        PCA of vectors of d dimensions

    C = min(n x cores of a node, N / SMALLEST_PART rounded up)

It is the one of docs/scaling.md, whose figures were checked against runs of up to 100,000 images.
Assumptions, beside those that the constants name:

- A core is a core: this machine's and the node's are equally fast. What that may be wrong by is
  PROCESSORS_DIFFER, and every estimate says so.
- Two vCPU that are hyperthreads of one core are one core, on both sides. What EC2 says of a type's
  cores counts; a type of which it says nothing has half as many cores as vCPU.
- The rate measured here holds what the local MinIO took of the same cores, a tenth of two; S3 takes
  nothing of a node's. Estimates are slower by that.
- Reading from S3 of the same region keeps up with the network that computes, and no node waits for
  another. Writing and reading features and result is not in it: a second for each GB or so.
- The time that EC2 takes to hand out a machine is not in it, and not paid.

Costs are those of the whole time on all nodes (per second, a minute at least), their disks, public
addresses and S3's requests. Traffic within a region is free.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.cloud.aws.account import aws_errors
from toolkit.cloud.aws.prices import HOURS_PER_MONTH

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from toolkit.cloud.aws.account import AwsAccount
    from toolkit.cloud.aws.prices import Price, Tariff
    from toolkit.runs import RunRecord

__all__ = [
    "Estimate",
    "InstanceType",
    "MeasuredRate",
    "Range",
    "Work",
    "estimate",
    "instance_types",
    "memory_needed",
    "physical_cores",
]

# docs/scaling.md, measured on two cores of an AMD EPYC: the larger of its two figures.
FIXED_SECONDS = 7.3
# Listing a key: a 1,000th of a LIST request of 0.1 s, an assumption for S3 within its region, and
# the driver's own time, which is measured; both of docs/scaling.md.
LIST_SECONDS = 0.1 / 1000
KEY_SECONDS = 15e-6
# Multiply-adds a second of a core in the scatter matrix: docs/scaling.md.
SCATTER_RATE = 2e10
# toolkit.parts cuts no smaller part; a part is computed by one core.
SMALLEST_PART = 24
# Of two server processors the same pipeline's network did 99.6 and 198 images/s a core in f32
# (EfficientNetLite0), 16.9 and 31.7 (ResNet50): docs/measurements.md and benchmarks/results.
PROCESSORS_DIFFER = 2.0
# In bf16 a run was 1.9 times as fast as in f32, in int8 1.8 times, on the same processor
# (benchmarks/results). A processor that lacks the instructions gives that up.
PRECISIONS_DIFFER = 2.0
# The workers' start takes 2 s: 500 images took 3.5 s where more of them do 334 images/s
# (benchmarks/results). Of a shorter run than this it is more than a tenth.
SHORT_RUN_SECONDS = 20.0

# Memory: all processes of a run with two workers had 1,370 MiB at the most with EfficientNetLite0
# (17 MB of weights), 1,588 MiB with ResNet50 (98 MB); a worker of the first, 346 MiB after 100,000
# images (benchmarks/results). That makes 330 MiB and 1.2 times the weights for a worker, 700 MiB
# for the rest; and the JVM may fill its heap of 1 GiB.
WORKER_MIB = 330
WORKER_WEIGHTS = 1.2
REST_MIB = 700 + 1024
# The rest is for Ubuntu and its file cache; an assumption.
USABLE_MEMORY = 0.75

# Requests beside one GET an image: docs/scaling.md, with parts as small as ResNet50's.
_IMAGES_A_PART = 96
_PARTS_A_RESULT = 64
_KEYS_A_LIST = 1000
_BILLED_MINUTES = 1.0


@dataclass(frozen=True, slots=True)
class InstanceType:
    """What EC2 says of an instance type.

    Parameters
    ----------
    vcpus
        Virtual processors: as many tasks run at a time.
    cores
        Processor cores; fewer than `vcpus` where those are hyperthreads.
    memory_mib
        MiB.
    architecture
        ``x86_64`` or ``arm64``.
    burstable
        Whether it is slowed down, or costs more, when it computes for long.
    """

    name: str
    vcpus: int
    cores: int
    memory_mib: int
    architecture: str
    burstable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredRate:
    """How fast a run on this machine was.

    Parameters
    ----------
    images_per_second
        Of the stage that makes features, on all `cores`.
    cores
        Processor cores that it had.
    seconds
        What that stage took.
    precision
        ``f32``, ``bf16`` or ``int8``.
    """

    images_per_second: float
    cores: int
    seconds: float
    precision: str

    @classmethod
    def of(cls, record: RunRecord, *, cores: int) -> MeasuredRate | None:
        """Take it from a run's record; None if the run is not done or featurized nothing itself.

        Parameters
        ----------
        record
            Of a run on this machine.
        cores
            That the run had: `physical_cores`, or fewer tasks at a time if it was given fewer.
        """
        if record.status != "done" or not record.images_per_second:
            return None
        return cls(
            images_per_second=record.images_per_second,
            cores=cores,
            seconds=record.seconds["features"],
            precision=record.precision,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What is to be done.

    Parameters
    ----------
    images
        Number of images, at least 1.
    dimensions
        Of a vector.
    model_mib
        Size of the network's weights, in MiB.
    setup_minutes
        From a node's start until the job begins, as measured.
    nodes
        Number of nodes that compute; each is paid.
    volume_gib
        Size of a node's disk, in GiB.
    """

    images: int
    dimensions: int
    model_mib: float
    setup_minutes: float
    nodes: int = 1
    volume_gib: int = 30


@dataclass(frozen=True, slots=True)
class Range:
    """What is expected, and between which bounds it lies."""

    least: float
    expected: float
    most: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A row of the plan: one instance type.

    Parameters
    ----------
    instance
        The type.
    nodes
        Number of them.
    on_demand, spot
        Price of an hour of one; None: unknown, or nobody asked.
    minutes
        Wall time, the node's set-up included; None where nothing was measured.
    usd, usd_spot
        What all of it costs in US dollars; None where time or price is unknown.
    notes
        What makes it uncertain, in sentences.
    problem
        Why the type can't be taken; empty if it can.
    """

    instance: InstanceType
    nodes: int
    on_demand: Price | None
    spot: Price | None
    minutes: Range | None
    usd: Range | None
    usd_spot: Range | None
    notes: tuple[str, ...]
    problem: str = ""


def physical_cores() -> int:
    """Return how many cores this process may use; hyperthreads of one core count once.

    A virtual machine that does not show which are hyperthreads is taken to have none: estimates are
    then too slow, not too fast.
    """
    cores = set()
    for cpu in os.sched_getaffinity(0):
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        try:
            cores.add(siblings.read_text(encoding="ascii").strip())
        except OSError:
            cores.add(str(cpu))
    return len(cores)


def instance_types(account: AwsAccount, names: Sequence[str]) -> dict[str, InstanceType]:
    """Ask EC2 for facts about instance types; those that the region does not offer are left out.

    Raises
    ------
    AwsError
        AWS refuses or does not answer.
    """
    with aws_errors(doing="ask for instance types"):
        pages = account.client("ec2").get_paginator("describe_instance_types")
        # As a filter: a name that there is not is no error then.
        wanted = [{"Name": "instance-type", "Values": list(names)}]
        found = [each for page in pages.paginate(Filters=wanted) for each in page["InstanceTypes"]]
    types = {each["InstanceType"]: _instance_type(each) for each in found}
    return {name: types[name] for name in names if name in types}


def memory_needed(vcpus: int, model_mib: float) -> float:
    """Return the memory in MiB that a node needs which runs so many tasks at a time."""
    return REST_MIB + vcpus * (WORKER_MIB + WORKER_WEIGHTS * model_mib)


def estimate(
    work: Work,
    instances: Iterable[InstanceType],
    *,
    rate: MeasuredRate | None,
    tariff: Tariff,
    spot: bool = False,
) -> list[Estimate]:
    """Estimate time and cost of the work on each instance type, by the model of this module.

    Parameters
    ----------
    work
        What is to be done.
    instances
        From `instance_types`.
    rate
        What was measured here. None: there are prices, but neither times nor costs; a time that
        rests on nothing would be worse than none.
    tariff
        The prices.
    spot
        Order by the costs on spot.

    Returns
    -------
    list of Estimate
        The cheapest first (without times: an hour of it); after them those without a price, and
        last those that can't be taken.

    Raises
    ------
    ValueError
        Fewer than one image or node.
    """
    if work.images < 1 or work.nodes < 1:
        raise ValueError(f"{work.images} images on {work.nodes} nodes are no work")
    rows = [_row(work, instance, rate=rate, tariff=tariff) for instance in instances]

    def order(row: Estimate) -> tuple[bool, float]:
        cost = row.usd_spot if spot else row.usd
        hourly = row.spot if spot else row.on_demand
        hour = hourly.usd if hourly else math.inf
        return bool(row.problem), cost.expected if cost else hour

    return sorted(rows, key=order)


def _instance_type(answer: dict[str, Any]) -> InstanceType:
    processors = answer["VCpuInfo"]
    vcpus = processors["DefaultVCpus"]
    architectures = answer["ProcessorInfo"]["SupportedArchitectures"]
    return InstanceType(
        name=answer["InstanceType"],
        vcpus=vcpus,
        cores=processors.get("DefaultCores") or max(1, vcpus // 2),
        memory_mib=answer["MemoryInfo"]["SizeInMiB"],
        architecture="x86_64" if "x86_64" in architectures else architectures[0],
        burstable=bool(answer.get("BurstablePerformanceSupported")),
    )


def _row(
    work: Work, instance: InstanceType, *, rate: MeasuredRate | None, tariff: Tariff
) -> Estimate:
    on_demand = tariff.on_demand.get(instance.name)
    spot = tariff.lowest_spot(instance.name)
    minutes = _minutes(work, instance, rate) if rate else None
    return Estimate(
        instance=instance,
        nodes=work.nodes,
        on_demand=on_demand,
        spot=spot,
        minutes=minutes,
        usd=_usd(work, minutes, hourly=on_demand, tariff=tariff),
        usd_spot=_usd(work, minutes, hourly=spot, tariff=tariff),
        notes=tuple(_notes(instance, rate, tariff)),
        problem=_problem(work, instance),
    )


def _minutes(work: Work, instance: InstanceType, rate: MeasuredRate) -> Range:
    cores = min(work.nodes * instance.cores, math.ceil(work.images / SMALLEST_PART))
    features = work.images * rate.cores / (rate.images_per_second * cores)
    pca = work.images * work.dimensions**2 / (2 * cores * SCATTER_RATE)
    certain = FIXED_SECONDS + work.images * (LIST_SECONDS + KEY_SECONDS)
    slower = PROCESSORS_DIFFER * (PRECISIONS_DIFFER if rate.precision != "f32" else 1)

    def minutes(factor: float) -> float:
        return work.setup_minutes + (certain + factor * (features + pca)) / 60

    return Range(minutes(1 / PROCESSORS_DIFFER), minutes(1), minutes(slower))


def _usd(
    work: Work, minutes: Range | None, *, hourly: Price | None, tariff: Tariff
) -> Range | None:
    if minutes is None or hourly is None:
        return None
    disk = tariff.gp3.usd * work.volume_gib / HOURS_PER_MONTH if tariff.gp3 else 0.0
    address = tariff.public_ipv4.usd if tariff.public_ipv4 else 0.0
    requests = 0.0
    if tariff.s3_get and tariff.s3_put:
        parts = work.images / _IMAGES_A_PART
        gets = work.images + 2 * parts
        puts = parts + parts / _PARTS_A_RESULT + work.images / _KEYS_A_LIST
        requests = gets * tariff.s3_get.usd + puts * tariff.s3_put.usd

    def usd(duration: float) -> float:
        hours = max(duration, _BILLED_MINUTES) / 60
        return work.nodes * hours * (hourly.usd + disk + address) + requests

    return Range(usd(minutes.least), usd(minutes.expected), usd(minutes.most))


def _notes(instance: InstanceType, rate: MeasuredRate | None, tariff: Tariff) -> list[str]:
    notes = []
    if rate is None:
        notes.append("Nothing was measured here, so there is no time: `toolkit run` measures it.")
    else:
        notes.append(
            "One processor's core may be twice as fast as another's, or half: so measured on two."
        )
        if rate.seconds < SHORT_RUN_SECONDS:
            notes.append(
                f"The run here computed for {rate.seconds:.0f} s only, and its start is in that: a "
                "long run is faster."
            )
        if rate.precision != "f32":
            notes.append(
                f"The run here computed in {rate.precision}; a processor without it is about half "
                "as fast."
            )
    if instance.architecture != "x86_64":
        notes.append(f"Nothing was measured on {instance.architecture}.")
    if instance.burstable:
        notes.append("It is slowed down, or costs more, when it computes for long.")
    if instance.name not in tariff.on_demand:
        notes.append("Its price here is not known.")
    missing = [
        name
        for name, price in {
            "disk": tariff.gp3,
            "public address": tariff.public_ipv4,
            "S3's requests": tariff.s3_get and tariff.s3_put,
        }.items()
        if price is None
    ]
    if missing:
        notes.append(f"Not in the costs, their prices here being unknown: {', '.join(missing)}.")
    return notes


def _problem(work: Work, instance: InstanceType) -> str:
    needed = memory_needed(instance.vcpus, work.model_mib)
    if needed <= USABLE_MEMORY * instance.memory_mib:
        return ""
    return (
        f"{instance.memory_mib / 1024:g} GiB of memory is too little: {instance.vcpus} tasks at a "
        f"time with this network need {needed / USABLE_MEMORY / 1024:.1f} GiB."
    )
