"""What a promotion will create, how long it should take and what it should cost: the plan."""

from __future__ import annotations

import math
import socket
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from toolkit.cloud.aws.names import resource_name, spark_secret_name
from toolkit.cloud.aws.prices import COMPUTE_TYPES, Prices
from toolkit.cloud.estimate import Estimate, MeasuredRate, Work, estimate, instance_types
from toolkit.models import executed_precision
from toolkit.runs import all_runs

if TYPE_CHECKING:
    from collections.abc import Iterable

    from toolkit.cloud.aws.account import AwsAccount
    from toolkit.cloud.aws.prices import Price, Tariff
    from toolkit.cloud.estimate import Range
    from toolkit.cloud.preflight import Facts
    from toolkit.cloud.source import ImageSource
    from toolkit.models import PreparedModel
    from toolkit.profiles import AwsSettings
    from toolkit.storage import Storage

__all__ = [
    "COLUMNS",
    "SETUP_MINUTES",
    "Plan",
    "created",
    "make_plan",
    "measured_rate",
    "notes",
    "rows",
]

COLUMNS = ("type", "vCPU", "GiB", "USD/h", "minutes", "USD", "")
"""Titles of the columns of `rows`."""

SETUP_MINUTES = 3.0
"""From a node's start until its job begins: 70 to 108 s on bare machines of two cores
(docs/measurements.md), and a minute in which EC2 boots Ubuntu, which is an assumption."""

# A node goes off after twice the longest time that is expected, and half an hour, whatever runs:
# long enough that no estimate of ours ends a job, short enough that a lost laptop costs little.
_DEAD_MAN_TIMES = 2.0
_DEAD_MAN_MORE_MINUTES = 30
_DEAD_MAN_LEAST_MINUTES = 60
_DEAD_MAN_UNMEASURED_MINUTES = 8 * 60
# Another type is taken by itself, where no zone has the first, only if it costs hardly more.
_DEARER = 1.25
# Each costs a request.
_RUNS_CONSIDERED = 50
_BYTES_PER_GB = 1e9


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What whoever promotes is asked to agree to.

    Attributes
    ----------
    promotion
        The promotion's id.
    facts
        What the preflight found.
    settings
        Of the instances.
    images, image_bytes
        Number and size of the images of the job.
    upload_bytes
        What goes from this machine to the bucket at the most.
    chosen
        The row of the type that is started.
    others
        The rows of types worth a look: cheaper or faster.
    fallbacks
        Types that are tried in this order where no zone has the chosen one.
    tariff
        The prices.
    dead_man_minutes
        After so many minutes a node goes off, whatever runs.
    measured
        Where the times come from; None: nothing was measured, and there are none.
    """

    promotion: str
    facts: Facts
    settings: AwsSettings
    images: int
    image_bytes: int
    upload_bytes: int
    chosen: Estimate
    others: tuple[Estimate, ...]
    fallbacks: tuple[str, ...]
    tariff: Tariff
    dead_man_minutes: int
    measured: MeasuredRate | None

    @property
    def types(self) -> tuple[str, ...]:
        """Instance types in the order in which they are tried."""
        return (self.chosen.instance.name, *self.fallbacks)

    @property
    def usd(self) -> Range | None:
        """What it should cost in US dollars; None: not known."""
        return self.chosen.usd_spot if self.settings.spot else self.chosen.usd

    @property
    def most_usd(self) -> float | None:
        """What the machines cost in US dollars if nothing but the timer ends them."""
        prices = [self._hourly(name) for name in self.types]
        known = [price.usd for price in prices if price is not None]
        if len(known) < len(prices):
            return None
        address = self.tariff.public_ipv4.usd if self.tariff.public_ipv4 else 0.0
        return self.chosen.nodes * (max(known) + address) * self.dead_man_minutes / 60

    def _hourly(self, name: str) -> Price | None:
        return (
            self.tariff.lowest_spot(name) if self.settings.spot else self.tariff.on_demand.get(name)
        )

    @property
    def transfer_usd(self) -> float | None:
        """What AWS charges for the images' way to another region; None: nothing, or not known."""
        if self.facts.transfer is None:
            return None
        return self.facts.transfer.usd * self.image_bytes / _BYTES_PER_GB


def measured_rate(storage: Storage, model: PreparedModel, *, cores: int) -> MeasuredRate | None:
    """Return how fast this machine was with a network, by the longest of its newest runs.

    Parameters
    ----------
    storage
        The local store, which has the runs.
    model
        The network: runs with another one, or another setting, say nothing.
    cores
        That those runs had.
    """
    precision = executed_precision(model)
    rates = [
        rate
        for record in islice(all_runs(storage), _RUNS_CONSIDERED)
        if record.owner.host == socket.gethostname()
        and record.model == model.name
        and record.engine == model.engine
        and record.precision == precision
        and record.input_size == model.input_size
        and (rate := MeasuredRate.of(record, cores=cores))
    ]
    return max(rates, key=lambda rate: rate.seconds, default=None)


def make_plan(  # noqa: PLR0913 - all that decides on time and costs
    account: AwsAccount,
    promotion: str,
    *,
    facts: Facts,
    settings: AwsSettings,
    source: ImageSource,
    model: PreparedModel,
    model_bytes: int,
    bundle_bytes: int,
    rate: MeasuredRate | None,
) -> Plan:
    """Estimate time and costs, for the type of the settings and for others.

    Parameters
    ----------
    account
        In the region of the instances.
    promotion
        The promotion's id.
    facts
        What the preflight found.
    settings
        Of the instances.
    source
        The images.
    model
        The network.
    model_bytes
        Size of the network's files.
    bundle_bytes
        What is uploaded beside the images, at the most.
    rate
        What was measured here; None: there will be prices, but no times.

    Raises
    ------
    AwsError
        AWS refuses or does not answer.
    """
    work = Work(
        images=len(source.listing),
        dimensions=model.dimensions,
        model_mib=model_bytes / 2**20,
        setup_minutes=SETUP_MINUTES,
        nodes=settings.nodes,
        volume_gib=settings.volume_gib,
    )
    names = tuple(dict.fromkeys((settings.instance_type, *COMPUTE_TYPES)))
    tariff = Prices(account).tariff(names, spot=settings.spot)
    offered = instance_types(account, names) | {settings.instance_type: facts.instance_type}
    found = estimate(work, offered.values(), rate=rate, tariff=tariff, spot=settings.spot)
    chosen = next(row for row in found if row.instance.name == settings.instance_type)
    rest = [row for row in found if row is not chosen and not row.problem]
    return Plan(
        promotion=promotion,
        facts=facts,
        settings=settings,
        images=len(source.listing),
        image_bytes=source.listing.bytes,
        upload_bytes=bundle_bytes + (source.listing.bytes if source.folder else 0),
        chosen=chosen,
        others=tuple(_worth_a_look(rest, spot=settings.spot)),
        fallbacks=tuple(_fallbacks(chosen, rest, spot=settings.spot)),
        tariff=tariff,
        dead_man_minutes=_dead_man_minutes(chosen, settings),
        measured=rate,
    )


def created(plan: Plan) -> list[tuple[str, str]]:
    """Return what will be there while the promotion goes on, and where, as rows of two columns."""
    facts, settings = plan.facts, plan.settings
    name = resource_name(plan.promotion)
    zones = ", ".join(zone.name for zone in facts.zones)
    kind = "spot" if settings.spot else "on demand"
    rights = (
        f"{facts.existing.arn}, which is yours"
        if facts.existing
        else f"role and instance profile {name}, for this bucket alone"
    )
    lines = [
        ("account", f"{facts.identity.account}, {facts.identity.arn}"),
        ("nodes", f"{settings.nodes} x {settings.instance_type}, {kind}, in one of {zones}"),
        ("", f"Ubuntu 24.04 ({facts.image.id}), {settings.volume_gib} GiB encrypted gp3 each"),
        ("network", f"security group {name}: nobody outside reaches the nodes"),
        ("rights", rights),
    ]
    if settings.nodes > 1:
        lines.append(("secret", f"{spark_secret_name(plan.promotion)}, of the Spark cluster"))
    if plan.fallbacks:
        lines.append(("if there are none", ", then ".join(plan.fallbacks)))
    lines += [
        ("images", f"{plan.images} of {_megabytes(plan.image_bytes)}"),
        ("upload", f"{_megabytes(plan.upload_bytes)} at the most, to {facts.bucket}"),
        ("costs", _costs(plan)),
        ("at the most", _at_most(plan)),
    ]
    if plan.transfer_usd is not None:
        way = f"{facts.bucket_region} to {facts.region}"
        lines.append(("between regions", f"{plan.transfer_usd:.2f} USD for the images: {way}"))
    return lines


def rows(plan: Plan) -> list[tuple[str, ...]]:
    """Return time and costs of the chosen type and of the others, to stand under `COLUMNS`."""
    return [_row(plan, plan.chosen, "chosen"), *(_row(plan, row, "") for row in plan.others)]


def notes(plan: Plan) -> list[str]:
    """Return what makes the figures uncertain, each once."""
    own = dict.fromkeys(note for row in (plan.chosen, *plan.others) for note in row.notes)
    hourly = plan.chosen.spot if plan.settings.spot else plan.chosen.on_demand
    if hourly is not None:
        own[f"The price of {plan.chosen.instance.name}: {hourly.source}."] = None
    if plan.tariff.problem:
        own[plan.tariff.problem] = None
    return list(own)


def _dead_man_minutes(chosen: Estimate, settings: AwsSettings) -> int:
    if settings.max_hours is not None:
        return max(1, math.ceil(settings.max_hours * 60))
    if chosen.minutes is None:
        return _DEAD_MAN_UNMEASURED_MINUTES
    long = _DEAD_MAN_TIMES * chosen.minutes.most + _DEAD_MAN_MORE_MINUTES
    return max(_DEAD_MAN_LEAST_MINUTES, math.ceil(long))


def _cost(row: Estimate, *, spot: bool) -> float | None:
    """Return what a row costs; where no time is known, an hour of it."""
    whole = row.usd_spot if spot else row.usd
    hourly = row.spot if spot else row.on_demand
    return whole.expected if whole else hourly.usd if hourly else None


def _worth_a_look(found: Iterable[Estimate], *, spot: bool) -> Iterable[Estimate]:
    """Yield those that no other one is cheaper than and faster: sorted by costs, as they come."""
    fastest = math.inf
    for row in found:
        minutes = row.minutes.expected if row.minutes else 1 / row.instance.cores
        if _cost(row, spot=spot) is not None and minutes < fastest:
            fastest = minutes
            yield row


def _fallbacks(chosen: Estimate, rest: Iterable[Estimate], *, spot: bool) -> Iterable[str]:
    limit = _cost(chosen, spot=spot)
    for row in rest:
        cost = _cost(row, spot=spot)
        alike = (
            row.instance.vcpus == chosen.instance.vcpus
            and row.instance.architecture == chosen.instance.architecture
            and not row.instance.burstable
        )
        if alike and limit is not None and cost is not None and cost <= _DEARER * limit:
            yield row.instance.name


def _row(plan: Plan, row: Estimate, remark: str) -> tuple[str, ...]:
    spot = plan.settings.spot
    hourly, usd = (row.spot, row.usd_spot) if spot else (row.on_demand, row.usd)
    return (
        row.instance.name,
        str(row.instance.vcpus),
        f"{row.instance.memory_mib / 1024:g}",
        f"{hourly.usd:.4f}" if hourly else "?",
        _between(row.minutes, "{:.0f}"),
        _between(usd, "{:.2f}"),
        row.problem or remark,
    )


def _between(span: Range | None, form: str) -> str:
    if span is None:
        return "?"
    low, expected, most = (form.format(each) for each in (span.least, span.expected, span.most))
    return f"{expected} ({low} to {most})"


def _costs(plan: Plan) -> str:
    if plan.usd is None:
        return "not known: nothing was measured here, or the price is not known"
    return f"{_between(plan.usd, '{:.2f}')} USD"


def _at_most(plan: Plan) -> str:
    hours = plan.dead_man_minutes / 60
    timer = f"every node goes off after {hours:.1f} h, whatever runs"
    if plan.most_usd is None:
        return timer
    return f"{plan.most_usd:.2f} USD for machines: {timer}"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
