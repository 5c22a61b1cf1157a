"""`toolkit promote` as a process that is killed, hung up, interrupted, or called twice at once."""

from __future__ import annotations

import json
import re
import signal
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.support.promotion_calls import Held, is_done, working
from toolkit.cloud.journal import load_record
from toolkit.cloud.status import BOOT_STAGE, PromotionFolder, Status
from toolkit.cloud.sweep import find

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.promotion import Node

# The other points at which it may be killed: tests/release/test_kill_points.py.
pytestmark = pytest.mark.timeout(300)


def test_killed_again_and_again_one_promotion_comes_to_its_end(cloud, promote, works, front):
    may_end, is_off = threading.Event(), threading.Event()

    def work(folder: PromotionFolder, node: Node) -> Iterator[None]:
        folder.report(Status("running", node.name))
        while not may_end.is_set():
            yield
        works(folder, node)
        is_off.wait(200)

    def killed_at(action: str) -> str:
        held = Held(front, action)
        call = promote(AWS_ENDPOINT_URL=front.url)
        held.wait()
        call.kill()
        held.free()
        return call.said

    with ExitStack() as exits:
        exits.enter_context(cloud.machines(cloud.saying(work)))
        exits.callback(is_off.set)
        exits.callback(may_end.set)

        call = promote()
        call.until("Upload:")
        call.kill()
        (promotion_id,) = cloud.ids
        assert cloud.left() == []

        # Its reply is lost: nobody has heard of the instance.
        assert f"Promotion {promotion_id} of" in killed_at("ec2:RunInstances")
        (node,) = cloud.instances("pending", "running")

        may_end.set()
        killed_at("ec2:TerminateInstances")
        assert cloud.left() != []

        assert is_done(promote(), cloud)
    assert cloud.ids == [promotion_id]
    assert [each["InstanceId"] for each in cloud.instances()] == [node["InstanceId"]]


def test_interrupted_launch_removes_what_it_has_made_and_says_so(cloud, promote, front):
    held = Held(front, "ec2:RunInstances")
    call = promote(AWS_ENDPOINT_URL=front.url)
    held.wait()
    assert cloud.left() != []
    call.signal(signal.SIGINT)
    held.free()
    code, _ = call.end()
    assert code != 0
    assert f"Nothing of promotion {cloud.ids[0]} is left in AWS" in call.said
    assert cloud.left() == []
    assert load_record(cloud.promotion()).outcome == "not started"


def test_terminal_that_closes_leaves_the_node_at_work(cloud, promote, begin, works):
    with working(cloud, works) as worker:
        call = promote()
        for number in (signal.SIGINT, signal.SIGHUP):
            call.until(BOOT_STAGE)
            call.signal(number)
            code, _ = call.end()
            assert (code == 130) if number == signal.SIGINT else code != 0
            assert len(cloud.instances("running")) == 1
            (promotion_id,) = cloud.ids
            call = begin("promote", "--follow", promotion_id)
        call.until(BOOT_STAGE)
        worker.may_end()
        assert is_done(call, cloud)
    assert len(cloud.instances()) == 1


def test_two_at_once_are_promotions_of_their_own_and_each_removes_its_own(
    cloud, begin, works, mixed_folder
):
    with working(cloud, works) as worker:
        calls = []
        for _ in range(2):
            calls.append(begin("promote", str(mixed_folder), "--no-rehearse", "--yes", "--json"))
            calls[-1].until("Upload:")  # it has a record: the next call sees that it is at work
        for call in calls:
            call.until(BOOT_STAGE)
        ids = [re.search(r"Role fruits-toolkit-(\S+)", call.said)[1] for call in calls]
        assert sorted(ids) == cloud.ids
        worker.may_end(ids[0])
        calls[0].end()
        assert {each.promotion for each in find(cloud.account)} == {ids[1]}
        assert len(cloud.instances("running")) == 1
        worker.may_end()
        for promotion_id, call in zip(ids, calls, strict=True):
            code, printed = call.end()
            assert code == 0, call.said
            told = json.loads(printed)
            assert told["promotion"] == promotion_id
            assert {each["promotion"] for each in told["removed"]} == {promotion_id}
    assert cloud.left() == []
