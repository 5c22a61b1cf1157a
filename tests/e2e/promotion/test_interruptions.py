"""`toolkit promote` cut off: killed, interrupted, twice at once. Nothing is lost, nothing is left.

The commands are processes of their own, in a session of their own, as a terminal has them.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.support.aws_proxy import in_front_of
from tests.support.promotion import LAUNCH
from toolkit.cloud.journal import load_record
from toolkit.cloud.status import BOOT_STAGE, PromotionFolder, Stage, Status
from toolkit.cloud.sweep import find
from toolkit.runs import RunFolder, new_run_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.aws_proxy import Asked, InFront
    from tests.support.promotion import Cloud, Script, Scripted

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

_WAIT = 200.0  # two cores, and others on them
_DETACHED = 130
_LAUNCHED = ": c7i.2xlarge in"
_ALL = "all"


class Call:
    """A call of the toolkit, whose words are read as they come."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._lines: list[str] = []
        self._out = ""
        self._is_over = False
        self._heard = threading.Condition()
        self._threads = [
            threading.Thread(target=self._listen, name="stderr"),
            threading.Thread(target=self._take, name="stdout"),
        ]
        for thread in self._threads:
            thread.start()

    def _listen(self) -> None:
        with self.process.stderr as words:
            for line in words:
                with self._heard:
                    self._lines.append(line)
                    self._heard.notify_all()
        with self._heard:
            self._is_over = True
            self._heard.notify_all()

    def _take(self) -> None:
        with self.process.stdout as words:
            self._out = words.read()

    @property
    def said(self) -> str:
        """What it has said so far on stderr."""
        with self._heard:
            return "".join(self._lines)

    def heard(self, words: str) -> bool:
        return any(words in line for line in self._lines)

    def until(self, words: str) -> None:
        """Wait for a line with these words."""
        with self._heard:
            self._heard.wait_for(lambda: self.heard(words) or self._is_over, _WAIT)
            assert self.heard(words), f"{words!r} was not said, but:\n{''.join(self._lines)}"

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all its processes, as a terminal does."""
        os.killpg(self.process.pid, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self.end()

    def end(self) -> tuple[int, str]:
        """Wait for its end, and return its exit code and what it has printed on stdout."""
        code = self.process.wait(_WAIT)
        for thread in self._threads:
            thread.join()
        return code, self._out


@pytest.fixture
def begin(cloud: Cloud) -> Callable[..., Call]:
    """Return what calls the toolkit."""
    return lambda *arguments, **env: Call(cloud.begin(*arguments, **env))


@pytest.fixture
def promote(begin: Callable[..., Call], mixed_folder: Path) -> Callable[..., Call]:
    """Return what promotes the images, always with the same arguments."""
    return lambda **env: begin("promote", str(mixed_folder), "--no-rehearse", "--yes", **env)


class Held:
    """A reply of AWS that is held back: what was asked for is done, and the asker can't know."""

    def __init__(self, front: InFront, action: str) -> None:
        self._action = action
        self._is_held, self._is_free = threading.Event(), threading.Event()
        front.then = self._hold

    def _hold(self, asked: Asked, _: bytes) -> None:
        if asked.name == self._action and asked.parameters.get("DryRun") != "true":
            self._is_held.set()
            self._is_free.wait(_WAIT)

    def wait(self) -> None:
        assert self._is_held.wait(_WAIT), f"nobody has asked for {self._action}"

    def free(self) -> None:
        self._is_free.set()


@pytest.fixture
def front(cloud: Cloud) -> Iterator[InFront]:
    with in_front_of(cloud.moto.url) as server:
        yield server


class Worker:
    """A node that works, and ends only when a test lets it, or somebody stops it."""

    def __init__(self, works: Script) -> None:
        self._works = works
        self._may_end: set[str] = set()

    def __call__(self, folder: PromotionFolder, node: Scripted) -> None:
        stages = (Stage(BOOT_STAGE, seconds=1.0), Stage("Features", total=24, done=12))
        folder.report(Status("running", node.name, stages=stages))
        while not self._may_end & {_ALL, folder.promotion_id}:
            if folder.is_asked_to_stop():
                folder.report(Status("stopped", node.name, stages=stages))
                return
            folder.report(Status("running", node.name, stages=stages))
            time.sleep(0.2)
        self._works(folder, node)

    def may_end(self, promotion_id: str = _ALL) -> None:
        self._may_end.add(promotion_id)


@contextmanager
def working(cloud: Cloud, works: Script) -> Iterator[Worker]:
    """Have EC2 boot nodes that end when they may, at last at the end of the block."""
    worker = Worker(works)
    with ExitStack() as exits:
        exits.enter_context(cloud.machines(cloud.saying(worker)))
        exits.callback(worker.may_end)
        yield worker


def is_done(call: Call, cloud: Cloud) -> bool:
    """Require that a call has ended well, with a run, and that nothing is left."""
    code, printed = call.end()
    assert code == 0, call.said
    assert ": done" in printed
    assert cloud.left() == []
    for promotion_id in cloud.ids:
        folder = cloud.promotion(promotion_id)
        record = load_record(folder)
        assert (record.outcome, record.ended_at is not None) == ("done", True)
        assert RunFolder(cloud.storage, folder.status().run_id).load().status == "done"
    return True


# --- killed ---


@pytest.mark.parametrize("action", ["sts:GetCallerIdentity", "pricing:GetProducts"])
def test_killed_before_anybody_was_asked_it_leaves_nothing_at_all(cloud, promote, front, action):
    held = Held(front, action)
    call = promote(AWS_ENDPOINT_URL=front.url)
    held.wait()
    call.kill()
    held.free()
    assert is_untouched(cloud)


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

    def work(folder: PromotionFolder, node: Scripted) -> None:
        works(folder, node)
        is_off.wait(_WAIT)

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
        for number in (signal.SIGHUP, signal.SIGTERM):
            call.until(BOOT_STAGE)
            call.signal(number)
            code, _ = call.end()
            assert code != 0
            assert len(cloud.instances("running")) == 1
            (promotion_id,) = cloud.ids
            call = begin("promote", "--follow", promotion_id)
        call.until(BOOT_STAGE)
        worker.may_end()
        assert is_done(call, cloud)
    assert len(cloud.instances()) == 1


# --- interrupted ---


@pytest.mark.parametrize("action", ["iam:CreateInstanceProfile", "ec2:RunInstances"])
def test_interrupted_launch_removes_what_it_has_made_and_says_so(cloud, promote, front, action):
    held = Held(front, action)
    call = promote(AWS_ENDPOINT_URL=front.url)
    held.wait()
    assert cloud.left() != []
    call.signal(signal.SIGINT)
    held.free()
    code, _ = call.end()
    assert code != 0
    assert _LAUNCHED not in call.said  # it never heard of the instance
    assert "what it has made is removed" in call.said
    assert f"Nothing of promotion {cloud.ids[0]} is left in AWS" in call.said
    assert cloud.left() == []
    assert load_record(cloud.promotion()).outcome == "not started"


def test_interrupted_in_its_removal_too_it_names_the_command_that_removes_the_rest(
    cloud, promote, begin, front
):
    launch = Held(front, "ec2:RunInstances")
    call = promote(AWS_ENDPOINT_URL=front.url)
    launch.wait()
    call.signal(signal.SIGINT)
    removal = Held(front, "ec2:TerminateInstances")
    launch.free()
    removal.wait()
    call.signal(signal.SIGINT)
    removal.free()
    code, _ = call.end()
    (promotion_id,) = cloud.ids
    assert code != 0
    assert f"toolkit sweep {promotion_id}" in call.said
    assert any(each.startswith("role") for each in cloud.left())
    sweep = begin("sweep", promotion_id, "--yes")
    code, printed = sweep.end()
    assert (code, cloud.left()) == (0, []), sweep.said
    assert f"Nothing of {promotion_id} is left" in printed


def test_interrupted_while_the_node_works_it_detaches_and_one_comes_back(
    cloud, promote, begin, works
):
    with working(cloud, works) as worker:
        call = promote()
        for line in (_LAUNCHED, BOOT_STAGE):
            call.until(line)
            call.signal(signal.SIGINT)
            code, _ = call.end()
            (promotion_id,) = cloud.ids
            assert code == _DETACHED
            for command in (f"promote --follow {promotion_id}", "runs", f"stop {promotion_id}"):
                assert f"toolkit {command}" in call.said
            assert "Removing" not in call.said
            assert len(cloud.instances("running")) == 1
            call = begin("promote", "--follow", promotion_id)
        call.until(BOOT_STAGE)
        worker.may_end()
        assert is_done(call, cloud)


def test_interrupted_tear_down_names_the_command_that_removes_the_rest(cloud, promote, works):
    with cloud.machines(cloud.saying(works)):
        call = promote()
        call.until("Removing security group")
        call.signal(signal.SIGINT)
        code, _ = call.end()
        (promotion_id,) = cloud.ids
        assert code != 0
        assert f"toolkit sweep {promotion_id}" in call.said
        assert load_record(cloud.promotion()).ended_at is None  # called again, it goes on


def test_run_that_can_not_be_fetched_leaves_nothing_that_costs(cloud, promote, record):
    def work(folder: PromotionFolder, node: Scripted) -> None:
        run = RunFolder(folder.storage, new_run_id())
        run.save(replace(record, run_id=run.run_id))  # and no report
        folder.report(Status("done", node.name, run_id=run.run_id))

    with cloud.machines(cloud.saying(work)):
        call = promote()
        code, _ = call.end()
    assert code == 1
    assert "report.html" in call.said
    assert cloud.left() == []


def test_stopped_node_ends_its_follower_and_leaves_nothing(cloud, promote, begin, works):
    with working(cloud, works):
        follower = promote()
        follower.until(BOOT_STAGE)
        (promotion_id,) = cloud.ids
        code, _ = begin("stop", promotion_id).end()
        assert code == 0
        code, printed = follower.end()
    assert code == 1
    assert f"Promotion {promotion_id}: stopped" in printed
    assert cloud.left() == []
    assert load_record(cloud.promotion()).outcome == "stopped"


# --- two at once ---


@pytest.fixture
def other_folder(mixed_folder: Path, tmp_path: Path) -> Path:
    """Return a folder with some of the images."""
    chosen = sorted(path for path in mixed_folder.iterdir() if path.is_dir())[1]
    return shutil.copytree(chosen, tmp_path / "other fruits" / chosen.name).parent


def test_those_at_once_are_promotions_of_their_own_and_each_removes_its_own(
    cloud, begin, works, mixed_folder, other_folder
):
    with working(cloud, works) as worker:
        calls = []
        for folder in (other_folder, mixed_folder, mixed_folder):
            calls.append(begin("promote", str(folder), "--no-rehearse", "--yes", "--json"))
            if folder == mixed_folder:
                calls[-1].until("Upload:")  # it has a record: the next call sees that it is at work
        for call in calls:
            call.until(BOOT_STAGE)
        ids = [re.search(r"Role fruits-toolkit-(\S+)", call.said)[1] for call in calls]
        assert sorted(ids) == cloud.ids
        worker.may_end(ids[0])
        calls[0].end()
        assert {each.promotion for each in find(cloud.account)} == {*ids[1:]}
        assert len(cloud.instances("running")) == 2
        worker.may_end()
        for promotion_id, call in zip(ids, calls, strict=True):
            code, printed = call.end()
            assert code == 0, call.said
            told = json.loads(printed)
            assert told["promotion"] == promotion_id
            assert {each["promotion"] for each in told["removed"]} == {promotion_id}
    assert cloud.left() == []


# --- nobody has agreed ---


def asked(cloud: Cloud, folder: Path, answer: str) -> Call:
    """Promote at a terminal, at which somebody types an answer."""
    theirs, ours = os.openpty()
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "toolkit", "promote", str(folder), "--no-rehearse"],
            cwd=cloud.folder,
            env=cloud.env,
            stdin=ours,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        cloud.calls.append(process)
        os.write(theirs, answer.encode())
        call = Call(process)
        call.end()
    finally:
        os.close(ours)
        os.close(theirs)
    return call


def is_untouched(cloud: Cloud) -> bool:
    """Whether AWS is as it was: nothing in the bucket, and nothing of a promotion elsewhere."""
    return [*cloud.storage.objects(cloud.storage.location()), *cloud.left()] == []


def test_plan_shows_what_it_costs_and_sends_nothing(cloud, begin, mixed_folder):
    call = begin("promote", str(mixed_folder), "--no-rehearse", "--plan")
    code, printed = call.end()
    assert code == 0, call.said
    assert "Time and costs" in printed
    assert [line for line in printed.splitlines() if "c7i.2xlarge" in line and "chosen" in line]
    assert " USD for machines" in printed
    assert is_untouched(cloud)


def test_answer_of_no_sends_nothing(cloud, mixed_folder):
    call = asked(cloud, mixed_folder, "n\n")
    code, printed = call.end()
    assert code == 0, call.said
    assert "Start it?" in call.said
    assert "Nothing was started" in call.said
    assert "Time and costs" in printed
    assert is_untouched(cloud)


def test_where_nobody_can_be_asked_nothing_is_sent(cloud, begin, mixed_folder):
    call = begin("promote", str(mixed_folder), "--no-rehearse")
    code, _ = call.end()
    assert code == 2
    assert "--yes" in call.said
    assert is_untouched(cloud)
