"""Following a node through the bucket: its work is told as if it were here, its death as well."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import SecretStr

from localstack.process import free_ports
from tests.support.clock import FastClock
from tests.support.waiting import eventually
from toolkit.cloud.follow import FollowLimits, follow
from toolkit.cloud.node.log import NodeLog
from toolkit.cloud.status import BOOT_STAGE, PromotionFolder, Stage, Status
from toolkit.errors import JobError
from toolkit.profiles import S3Settings
from toolkit.runs import new_run_id
from toolkit.storage import Storage

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NODE = "i-0123456789abcdef0"
QUICK = 0.05
LIMITS = FollowLimits(boot=20, silent=20, poll=QUICK)


@dataclass
class Told:
    """A progress that remembers what it was told, and the lines of the log."""

    calls: list[tuple[Any, ...]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    def begin(self, title: str, *, total: int | None = None) -> None:
        self.calls.append(("begin", title, total))

    def advance_to(self, done: int) -> None:
        self.calls.append(("advance_to", done))

    def end(self, seconds: float) -> None:
        self.calls.append(("end", seconds))

    def say(self, text: str) -> None:
        self.calls.append(("say", text))


@dataclass
class Node:
    """A node as the bucket shows it."""

    folder: PromotionFolder
    log: NodeLog
    status: Status = field(
        default_factory=lambda: Status("booting", NODE, stages=(Stage(BOOT_STAGE),))
    )

    def is_at(self, **fields: Any) -> None:
        self.status = replace(self.status, **fields)
        self.folder.report(self.status)

    def says(self, text: str | bytes) -> None:
        """Say something, and ship it as a chunk of its own."""
        with self.log.file.open("ab") as file:
            file.write(text if isinstance(text, bytes) else text.encode())
        self.log.ship()


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def node(storage: Storage, tmp_path: Path) -> Node:
    folder = PromotionFolder(storage, new_run_id())
    return Node(folder, NodeLog(tmp_path / "node.log", folder, NODE))


@pytest.fixture
def following(node: Node, told: Told) -> Callable[..., Status]:
    """Return a function that follows the node."""

    def call(**options: Any) -> Status:
        return follow(
            node.folder,
            progress=told,
            on_line=told.lines.append,
            **{"limits": LIMITS} | options,
        )

    return call


def while_following(following: Callable[[], Status], script: Callable[[], None]) -> Status:
    """Follow while the script goes on in another thread; it has to bring the node to its end."""
    acting = threading.Thread(target=script)
    acting.start()
    try:
        return following()
    finally:
        acting.join()


def test_stages_are_told_in_order_as_the_node_reaches_them(node, told, following):
    boot = Stage(BOOT_STAGE, seconds=81.0)

    def script() -> None:
        node.is_at()
        eventually(lambda: ("begin", BOOT_STAGE, None) in told.calls)
        node.is_at(phase="running", stages=(boot, Stage("Features", total=120, done=10)))
        eventually(lambda: ("advance_to", 10) in told.calls)
        node.is_at(stages=(boot, Stage("Features", total=120, done=70)))
        eventually(lambda: ("advance_to", 70) in told.calls)
        done = Stage("Features", total=120, done=120, seconds=9.5)
        node.is_at(phase="done", run_id="a-run", stages=(boot, done, Stage("PCA", seconds=0.5)))

    last = while_following(following, script)
    assert (last.phase, last.run_id) == ("done", "a-run")
    assert told.calls == [
        ("begin", BOOT_STAGE, None),
        ("end", 81.0),
        ("begin", "Features", 120),
        ("advance_to", 10),
        ("advance_to", 70),
        ("advance_to", 120),
        ("end", 9.5),
        ("begin", "PCA", None),
        ("end", 0.5),
    ]


def test_stages_that_passed_between_two_looks_are_told_as_well(node, told, following):
    node.is_at(
        phase="done",
        stages=(
            Stage("Images", seconds=1.0),
            Stage("Features", total=5, done=5, seconds=2.0),
            Stage("PCA", seconds=3.0),
        ),
    )
    following()
    assert [call[1] for call in told.calls if call[0] == "begin"] == ["Images", "Features", "PCA"]
    assert [call[1] for call in told.calls if call[0] == "end"] == [1.0, 2.0, 3.0]


def test_log_comes_in_whole_lines_each_once_wherever_chunks_are_cut(node, told, following):
    def script() -> None:
        node.says("one\ntwo, in ")
        node.is_at()
        eventually(lambda: told.lines == ["one"])
        pear = "Birnenstückchen\n".encode()
        node.says(b"two chunks\n" + pear[:9])  # in the midst of a letter
        eventually(lambda: told.lines[1:] == ["two, in two chunks"])
        node.says(pear[9:] + b"\xff no text\nthe last, without an end")
        node.is_at(phase="done")

    while_following(following, script)
    assert told.lines == [
        "one",
        "two, in two chunks",
        "Birnenstückchen",
        "\N{REPLACEMENT CHARACTER} no text",
        "the last, without an end",
    ]


def test_who_comes_late_sees_the_end_of_a_long_log(node, told, following):
    for number in range(50):
        node.says(f"begin of {number},")
        node.says(f" end of {number}\n")
    node.says("the last\n")
    node.is_at(phase="done")
    following()
    assert told.lines == ["begin of 49, end of 49", "the last"]  # and no half of a line


@pytest.mark.parametrize("phase", ["failed", "stopped", "interrupted"])
def test_early_end_is_returned_with_its_reason(node, told, following, phase):
    node.is_at(phase=phase, error="It went wrong", stages=(Stage("Features", total=9, done=3),))
    last = following()
    assert (last.phase, last.error) == (phase, "It went wrong")
    assert told.calls[-1][0] == "end"  # the bar is not left open


def test_spot_notice_is_told_once(node, told, following):
    notice = "EC2 will terminate this instance at noon"
    node.is_at(phase="running", notice=notice)
    clock = FastClock(meanwhile=lambda: node.is_at(phase="interrupted") if clock.time > 9 else None)
    following(limits=FollowLimits(), clock=clock.clock)
    assert told.calls.count(("say", f"{notice}.")) == 1


def test_node_with_a_wrong_clock_is_alive_while_it_writes(node, following):
    def beat() -> None:
        """Write the status with a clock that stands years behind, in the end the last one."""
        phase = "running" if clock.time < 10 * FollowLimits().silent else "done"
        stamp = f"2001-01-01T00:{clock.time // 60:02.0f}:{clock.time % 60:02.0f}Z"
        status = replace(node.status, phase=phase, heartbeat=stamp)
        node.folder.storage.write(node.folder.file("status.json"), status.to_json().encode())

    clock = FastClock(at_least=30, meanwhile=beat)
    beat()
    assert following(limits=FollowLimits(), clock=clock.clock).phase == "done"


def test_silent_node_is_dead_and_its_last_lines_are_shown(node, told, following):
    node.is_at(phase="running", stages=(Stage("Features", total=9, done=3),))
    node.says("".join(f"line {number}\n" for number in range(40)) + "Killed")
    clock = FastClock()
    with pytest.raises(JobError, match="is dead: it has been silent for 46 s") as failed:
        following(limits=FollowLimits(), clock=clock.clock)
    assert clock.time == 46
    assert node.folder.promotion_id in failed.value.message
    assert failed.value.message.endswith("\n  | line 39\n  | Killed")
    assert "line 20" not in failed.value.message
    assert "--resume" in failed.value.remedy
    assert told.calls[-1][0] == "end"


def test_silent_node_whose_instance_runs_is_told_of_and_dead_much_later(node, told, following):
    node.is_at(phase="running")
    node.says("the last line\n")
    with pytest.raises(JobError, match="is dead: it has been silent for 300 s"):
        following(
            limits=FollowLimits(),
            clock=FastClock(at_least=10).clock,
            instance_state=lambda: "running",
        )
    (said,) = [call for call in told.calls if call[0] == "say"]
    assert said[1].startswith("The node says nothing, but its instance runs.")
    assert said[1].endswith("\n  | the last line")


def test_node_that_never_says_a_word_is_dead_after_the_time_to_boot(following):
    with pytest.raises(JobError, match=r"it has not said a word within 300 s.*nothing in its log"):
        following(limits=FollowLimits(), clock=FastClock(at_least=10).clock)


@pytest.mark.parametrize("state", ["shutting-down", "terminated", "stopping", "stopped"])
def test_node_whose_instance_is_gone_is_dead_before_its_silence_is_long(node, following, state):
    node.is_at(phase="running")
    clock = FastClock()
    with pytest.raises(JobError, match=f"is dead: its instance is {state}"):
        following(limits=FollowLimits(), clock=clock.clock, instance_state=lambda: state)
    assert clock.time < FollowLimits().silent


def test_last_words_of_a_node_count_when_its_instance_shuts_down(node, following):
    node.is_at(phase="running")
    clock = FastClock(meanwhile=lambda: node.is_at(phase="done") if clock.time == 10 else None)
    last = following(
        limits=FollowLimits(), clock=clock.clock, instance_state=lambda: "shutting-down"
    )
    assert last.phase == "done"


@pytest.mark.parametrize("state", ["pending", "running", None])
def test_instance_that_runs_or_is_not_known_is_not_taken_for_gone(node, following, state):
    node.is_at(phase="running")
    clock = FastClock(meanwhile=lambda: node.is_at(phase="done") if clock.time == 30 else None)
    last = following(limits=FollowLimits(), clock=clock.clock, instance_state=lambda: state)
    assert last.phase == "done"


def test_state_that_cannot_be_asked_for_does_not_end_the_following(node, following):
    def denied() -> str:
        raise JobError("You may not call ec2:DescribeInstances.")

    node.is_at(phase="done")
    assert following(instance_state=denied).phase == "done"


def test_detaching_leaves_everything_as_it_is(node, following):
    node.is_at(phase="running")
    node.says("a line\n")
    before = {
        each.location: each.e_tag for each in node.folder.storage.objects(node.folder.location)
    }

    def detach() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        following(instance_state=detach)
    after = {
        each.location: each.e_tag for each in node.folder.storage.objects(node.folder.location)
    }
    assert after == before


def test_store_that_stays_away_ends_the_following_and_not_the_node(told, monkeypatch):
    monkeypatch.setattr("toolkit.storage._RETRIES", 1)
    (port,) = free_ports(1)
    nowhere = S3Settings(
        endpoint=f"http://127.0.0.1:{port}",
        access_key_id=SecretStr("nobody"),
        secret_access_key=SecretStr("nothing"),
    )
    folder = PromotionFolder(Storage(nowhere), "a-promotion")
    with pytest.raises(JobError, match="can't be followed any more") as failed:
        follow(
            folder,
            progress=told,
            on_line=told.lines.append,
            limits=FollowLimits(store=0),
            clock=FastClock().clock,
        )
    assert "toolkit promote --follow a-promotion" in failed.value.remedy
