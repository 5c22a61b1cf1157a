"""A node of several without Spark: it finds the master, and ends when the first one has."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.support.clock import FastClock
from tests.support.spark_nodes import NAMES, RESERVATION
from toolkit.cloud.node.spark_cluster import Master, _FirstNode
from toolkit.cloud.status import Status
from toolkit.errors import JobError

pytestmark = pytest.mark.xdist_group("aws")  # moto is in that process already


def test_master_of_another_launch_is_none(folder):
    assert Master.find(folder, reservation=RESERVATION) is None
    left = Master("127.0.0.2", 7077, NAMES[0], "r-of-an-earlier-launch")
    left.announce(folder)
    assert Master.find(folder, reservation=RESERVATION) is None
    mine = replace(left, reservation=RESERVATION)
    mine.announce(folder)
    assert Master.find(folder, reservation=RESERVATION) == mine
    assert mine.url == "spark://127.0.0.2:7077"


def test_master_json_that_is_none_is_refused(folder):
    folder.storage.write(folder.file("master.json"), b"[1]")
    with pytest.raises(JobError, match="says of no master"):
        Master.find(folder, reservation=RESERVATION)


@pytest.mark.parametrize("phase", ["done", "failed", "stopped", "interrupted"])
def test_second_node_ends_when_the_first_has_without_a_master(folder, node, phase):
    folder.report(Status(phase, NAMES[0]))
    assert node(1).work() == f"the first node's is {phase}"


def test_status_of_a_later_launch_is_no_sign_of_life_of_the_first_node(folder):
    clock = FastClock()
    first = _FirstNode(folder, silent_seconds=300, clock=clock.clock)
    master = Master("127.0.0.2", 7077, NAMES[0], RESERVATION)
    folder.report(Status("running", NAMES[0]))
    assert first.why_over(master) is None
    clock.time += 301
    folder.report(Status("done", NAMES[1]))
    assert "has been silent for" in first.why_over(master)


def test_second_node_ends_when_somebody_asks_for_it(folder, node):
    folder.report(Status("running", NAMES[0]))
    folder.ask_to_stop()
    assert node(1).work() == "somebody has asked for it in the bucket"


def test_second_node_ends_when_the_first_is_silent(folder, node):
    folder.report(Status("booting", NAMES[0]))
    helper = replace(node(1), clock=FastClock(at_least=60).clock)
    assert helper.work() == "the first node has been silent for 300 s"
