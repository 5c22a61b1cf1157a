"""`toolkit promote` killed at each of its points. Nothing is lost, nothing is left."""

from __future__ import annotations

import signal
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.support.promotion import LAUNCH
from tests.support.promotion_calls import Held, is_done, working
from toolkit.cloud.status import BOOT_STAGE, PromotionFolder

if TYPE_CHECKING:
    from tests.support.promotion import Node

pytestmark = pytest.mark.timeout(600)


@pytest.mark.parametrize("action", ["sts:GetCallerIdentity", "pricing:GetProducts"])
def test_killed_before_anybody_was_asked_it_leaves_nothing_at_all(cloud, promote, front, action):
    held = Held(front, action)
    call = promote(AWS_ENDPOINT_URL=front.url)
    held.wait()
    call.kill()
    held.free()
    assert cloud.is_untouched()


@pytest.mark.parametrize("line", ["Upload:", BOOT_STAGE])
def test_killed_and_called_again_it_goes_on_with_the_same_promotion(cloud, promote, works, line):
    with working(cloud, works) as worker:
        killed = promote()
        killed.until(line)
        killed.kill()
        (promotion_id,) = cloud.ids
        again = promote()
        again.until(f"Promotion {promotion_id} of")
        worker.may_end()
        assert is_done(again, cloud)
    assert cloud.ids == [promotion_id]
    assert len(cloud.instances()) == 1


def test_killed_before_each_reply_of_the_launch_it_goes_on_with_what_there_is(
    cloud, promote, works, front
):
    with working(cloud, works) as worker:
        for action in LAUNCH:
            held = Held(front, action)
            call = promote(AWS_ENDPOINT_URL=front.url)
            held.wait()
            call.kill()
            held.free()
        (node,) = cloud.instances("pending", "running")  # nobody has heard of it
        again = promote()
        again.until(BOOT_STAGE)
        worker.may_end()
        assert is_done(again, cloud)
    assert len(cloud.ids) == 1
    assert [each["InstanceId"] for each in cloud.instances()] == [node["InstanceId"]]


def test_killed_while_it_removes_it_removes_the_rest_when_called_again(
    cloud, promote, works, front
):
    is_off = threading.Event()

    def work(folder: PromotionFolder, node: Node) -> None:
        works(folder, node)
        is_off.wait(200)

    with ExitStack() as exits:
        exits.enter_context(cloud.machines(cloud.saying(work)))
        exits.callback(is_off.set)
        for action in ("ec2:TerminateInstances", "ec2:DeleteSecurityGroup"):
            held = Held(front, action)
            call = promote(AWS_ENDPOINT_URL=front.url)
            held.wait()
            call.kill()
            held.free()
        (promotion_id,) = cloud.ids
        again = promote()
        assert is_done(again, cloud)
    assert f"Promotion {promotion_id} of" in again.said
    assert cloud.ids == [promotion_id]
    assert len(cloud.instances()) == 1


def test_killed_before_its_launch_it_is_not_waited_for_but_resumed(
    cloud, promote, begin, works, front
):
    held = Held(front, "ec2:CreateSecurityGroup")
    call = promote(AWS_ENDPOINT_URL=front.url)
    held.wait()
    call.kill()
    held.free()
    (promotion_id,) = cloud.ids
    follower = begin("promote", "--follow", promotion_id)
    code, _ = follower.end()
    assert code == 2
    assert f"toolkit promote --resume {promotion_id}" in follower.said
    with cloud.machines(cloud.saying(works)):
        assert is_done(begin("promote", "--resume", promotion_id, "--yes"), cloud)
    assert cloud.ids == [promotion_id]


def test_terminal_that_closes_leaves_the_node_at_work(cloud, promote, begin, works):
    with working(cloud, works) as worker:
        call = promote()
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
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
