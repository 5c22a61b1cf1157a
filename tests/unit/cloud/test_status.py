"""What a node says of itself: written whole, read by other versions, refused where it is none."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from toolkit.cloud.status import FINAL_PHASES, Stage, Status
from toolkit.errors import JobError

STATUS = Status(
    "running",
    "i-0123456789abcdef0",
    stages=(Stage("Set-up of the node", seconds=81.2), Stage("Features", total=120, done=48)),
    run_id="20261125-120000-000ab",
    notice="EC2 will terminate this instance at 2026-11-25T12:02:00Z",
)


def test_status_comes_back_as_it_was_written():
    assert Status.from_json(STATUS.to_json()) == STATUS


def test_fields_of_a_newer_version_are_left_out():
    fields = json.loads(STATUS.to_json())
    fields["mood"] = "fine"
    fields["stages"][1]["mood"] = "fine"
    assert Status.from_json(json.dumps(fields)) == STATUS


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "the whole: "),
        ("[]", "the whole: "),
        ('{"phase": "running"}', "node: "),
        ('{"phase": "asleep", "node": "a"}', "phase: "),
        ('{"phase": "running", "node": "a", "stages": [{}]}', "stages.0.title: "),
    ],
)
def test_what_is_no_status_is_refused_with_the_place(text, problem):
    with pytest.raises(JobError, match=f"no status of a node: {problem}"):
        Status.from_json(text)


def test_phases_after_which_nothing_comes_are_final():
    assert not STATUS.is_final
    assert all(replace(STATUS, phase=phase).is_final for phase in FINAL_PHASES)
