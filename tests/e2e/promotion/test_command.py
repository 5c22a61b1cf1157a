"""The command `toolkit promote`: what it asks, prints and returns."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from toolkit.cloud.status import BOOT_STAGE, PromotionFolder, Stage, Status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from subprocess import CompletedProcess

    from tests.support.promotion import Cloud, Node, Person


@pytest.fixture
def command(
    cloud: Cloud,
    person: Person,
    call: Callable[..., CompletedProcess],
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., CompletedProcess]:
    """Return what calls `promote` in this process, with the clock and the bundle of the tests."""
    monkeypatch.chdir(cloud.folder)
    monkeypatch.setattr("toolkit.cli.promote._here", lambda **_: person.here)

    def promote(*options: str, typed: str | None = None) -> CompletedProcess:
        images = person.request.images
        return call("promote", images, "--no-rehearse", *options, typed=typed)

    return promote


def test_plan_shows_what_it_costs_and_sends_nothing(cloud, command):
    told = command("--plan")
    assert told.returncode == 0, told.stderr
    assert "Time and costs" in told.stdout
    assert [line for line in told.stdout.splitlines() if "c7i.2xlarge" in line and "chosen" in line]
    assert " USD for machines" in told.stdout
    assert cloud.is_untouched()


def test_answer_of_no_sends_nothing(cloud, command):
    told = command(typed="n\n")
    assert told.returncode == 0, told.stderr
    assert "Start it?" in told.stderr
    assert "Nothing was started" in told.stderr
    assert "Time and costs" in told.stdout
    assert cloud.is_untouched()


def test_where_nobody_can_be_asked_nothing_is_sent(cloud, command):
    told = command()
    assert told.returncode == 2
    assert "--yes" in told.stderr
    assert cloud.is_untouched()


def test_ending_is_printed_with_the_run_and_what_was_removed(cloud, command, works):
    with cloud.nodes(works):
        told = command("--yes", "--json")
    assert told.returncode == 0, told.stderr
    (promotion_id,) = cloud.ids
    printed = json.loads(told.stdout)
    assert printed["promotion"] == promotion_id
    assert printed["status"]["phase"] == "done"
    assert printed["run"]["counts"] == {"listed": 27, "featurized": 24, "quarantined": 3}
    assert {each["promotion"] for each in printed["removed"]} == {promotion_id}
    with cloud.nodes(works):
        told = command("--yes")
    assert told.returncode == 0, told.stderr
    assert "27 listed, 24 featurized, 3 quarantined" in told.stdout
    assert ": done" in told.stdout
    assert "security group" in told.stdout


def test_early_end_is_printed_and_an_error(cloud, command):
    def work(folder: PromotionFolder, node: Node) -> None:
        folder.report(Status("stopped", node.name, error="Somebody has asked for it"))

    with cloud.nodes(work):
        told = command("--yes")
    assert told.returncode == 1
    assert f"Promotion {cloud.ids[0]}: stopped" in told.stdout
    assert "Somebody has asked for it" in told.stderr


def test_interrupt_tells_how_to_come_back(cloud, command, monkeypatch):
    def work(folder: PromotionFolder, node: Node) -> Iterator[None]:
        folder.report(Status("running", node.name, stages=(Stage(BOOT_STAGE),)))
        yield
        raise KeyboardInterrupt  # at the person's terminal: nodes go on while the person waits

    with cloud.nodes(work):
        told = command("--yes")
    assert told.returncode == 130
    (promotion_id,) = cloud.ids
    for words in (f"promote --follow {promotion_id}", "runs", f"stop {promotion_id}"):
        assert f"toolkit {words}" in told.stderr
    assert "Removing" not in told.stderr
    assert len(cloud.instances("running")) == 1
