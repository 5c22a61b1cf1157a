"""How fast this machine was, by the runs in the bucket."""

from __future__ import annotations

from tests.support.bundles import model
from toolkit.cloud.plan import measured_rate
from toolkit.models import executed_precision

__all__ = ["model"]


def test_rate_is_that_of_the_longest_run_of_the_same_network_here(storage, record, model):
    rate = measured_rate(storage, model, cores=2)
    assert rate.precision == executed_precision(model)
    assert rate.images_per_second > 0
    assert rate.seconds >= record.seconds["features"]
