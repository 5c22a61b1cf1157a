"""A promotion cut off by Ctrl-C, at each of its stages. Nothing is lost, nothing is left.

Where a reply of AWS is awaited, a real SIGINT comes; else the interrupt comes at a word it says.
"""

from __future__ import annotations

import signal
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.support.promotion import Desk, Node
from tests.support.waiting import eventually
from toolkit.cloud.journal import load_record
from toolkit.cloud.promotion import DetachedError
from toolkit.cloud.status import BOOT_STAGE, PromotionFolder, Stage, Status
from toolkit.cloud.sweep import sweep
from toolkit.errors import JobError
from toolkit.runs import RunFolder, new_run_id

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.aws_proxy import Asked, InFront

_LAUNCHED = ": c7i.2xlarge in"


class Interrupts:
    """Sends SIGINT to the main thread while it waits for the reply to an action, once for each.

    What was asked for is done, and the asker does not hear of it: the reply is held back until
    another word is said, or promoting is over.
    """

    def __init__(self, front: InFront, desk: Desk, *actions: str) -> None:
        self._desk = desk
        self._actions = list(actions)
        self.is_over = False
        front.then = self._interrupt

    def _interrupt(self, asked: Asked, _: bytes) -> None:
        if asked.name in self._actions and asked.parameters.get("DryRun") != "true":
            self._actions.remove(asked.name)
            said = len(self._desk.told)
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            eventually(lambda: self.is_over or len(self._desk.told) > said, within=60)


@pytest.mark.parametrize("action", ["iam:CreateInstanceProfile", "ec2:RunInstances"])
def test_interrupted_launch_removes_what_it_has_made_and_says_so(cloud, person, action):
    desk = Desk()
    with cloud.front() as front:
        Interrupts(front, desk, action)
        with pytest.raises(KeyboardInterrupt):
            person.promote(desk)
    assert _LAUNCHED not in desk.said  # it never heard of the instance
    assert "what it has made is removed" in desk.said
    assert f"Nothing of promotion {cloud.ids[0]} is left in AWS" in desk.said
    assert any(each.startswith("Removing role") for each in desk.told)
    assert cloud.left() == []
    assert load_record(cloud.promotion()).outcome == "not started"


def test_interrupted_in_its_removal_too_it_names_the_command_that_removes_the_rest(cloud, person):
    desk = Desk()
    with cloud.front() as front:
        Interrupts(front, desk, "ec2:RunInstances", "ec2:TerminateInstances")
        with pytest.raises(KeyboardInterrupt):
            person.promote(desk)
    (promotion_id,) = cloud.ids
    assert f"toolkit sweep {promotion_id}" in desk.said
    assert any(each.startswith("role") for each in cloud.left())
    sweep(cloud.account, promotion_id, clock=person.here.clock)
    assert cloud.left() == []


@pytest.mark.parametrize("line", [_LAUNCHED, BOOT_STAGE], ids=["launched", "at work"])
def test_interrupted_while_the_node_works_it_detaches_and_one_comes_back(
    cloud, person, works, line
):
    def work(folder: PromotionFolder, node: Node) -> Iterator[None]:
        folder.report(Status("running", node.name, stages=(Stage(BOOT_STAGE),)))
        while not is_alone:
            yield
        works(folder, node)

    is_alone = False
    desk = Desk(interrupt_at=line)
    with cloud.nodes(work):
        with pytest.raises(DetachedError) as detached:
            person.promote(desk)
        (promotion_id,) = cloud.ids
        assert detached.value.promotion_id == promotion_id
        assert "Removing" not in desk.said
        assert len(cloud.instances("running")) == 1
        assert load_record(cloud.promotion()).owner is None  # anybody may go on with it
        is_alone = True
        ending = person.come_back(promotion_id)
    assert ending.is_good
    assert cloud.left() == []
    assert len(cloud.instances()) == 1


def test_detached_promotion_goes_on_when_it_is_asked_for_again(cloud, person, works):
    desk = Desk(interrupt_at=_LAUNCHED)
    with cloud.nodes(works):
        with pytest.raises(DetachedError):
            person.promote(desk)
        (promotion_id,) = cloud.ids
        ending = person.promote(again := Desk())
    assert (ending.promotion_id, ending.is_good) == (promotion_id, True)
    assert f"Promotion {promotion_id} of" in again.said
    assert cloud.ids == [promotion_id]
    assert len(cloud.instances()) == 1
    assert cloud.left() == []


def test_interrupted_tear_down_names_the_command_that_removes_the_rest(cloud, person, works):
    desk = Desk(interrupt_at="Removing security group")
    with cloud.nodes(works):
        with pytest.raises(KeyboardInterrupt):
            person.promote(desk)
        (promotion_id,) = cloud.ids
        assert f"toolkit sweep {promotion_id}" in desk.said
        assert load_record(cloud.promotion()).ended_at is None  # called again, it goes on
        assert person.come_back(promotion_id).is_good
    assert cloud.left() == []


def test_run_that_can_not_be_fetched_leaves_nothing_that_costs(cloud, person, run_record):
    def work(folder: PromotionFolder, node: Node) -> None:
        run = RunFolder(folder.storage, new_run_id())
        run.save(replace(run_record, run_id=run.run_id))  # and no report
        folder.report(Status("done", node.name, run_id=run.run_id))

    with cloud.nodes(work), pytest.raises(JobError, match=r"report\.html"):
        person.promote()
    assert cloud.left() == []


def test_stopped_node_ends_its_follower_and_leaves_nothing(cloud, person):
    def work(folder: PromotionFolder, node: Node) -> Iterator[None]:
        folder.report(Status("running", node.name, stages=(Stage(BOOT_STAGE),)))
        yield
        folder.ask_to_stop()  # as `toolkit stop` does
        yield
        folder.report(Status("stopped", node.name, error="Somebody has asked for it"))

    with cloud.nodes(work):
        ending = person.promote()
    assert (ending.status.phase, ending.is_good) == ("stopped", False)
    assert f"toolkit promote --resume {ending.promotion_id}" in ending.status.remedy
    assert cloud.left() == []
    record = load_record(cloud.promotion())
    assert (record.outcome, record.error) == ("stopped", "Somebody has asked for it")
