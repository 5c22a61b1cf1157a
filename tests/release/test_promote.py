"""`toolkit promote`, from the bundle to an empty account: the whole story as a user calls it."""

from __future__ import annotations

import json

import pytest

pytestmark = pytest.mark.timeout(900)


def test_run_is_rehearsed_promoted_compared_and_nothing_is_left(cloud, mixed_folder):
    with cloud.machines() as machines:
        said = cloud.toolkit("promote", str(mixed_folder), "--yes", "--json", timeout=600)
    assert said.returncode == 0, said.stderr[-4000:]
    told = json.loads(said.stdout)
    assert told["status"]["phase"] == "done"
    assert told["run"]["counts"] == {"listed": 27, "featurized": 24, "quarantined": 3}
    assert told["parity"]["agree"]
    assert told["parity"]["shared"] == 24
    assert len(machines) == 1
    assert cloud.left() == []
