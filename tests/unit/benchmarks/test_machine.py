"""The head of the table says where the figures come from, and what speaks against them."""

import json

import pytest

from benchmarks.machine import described, short_cpu_name, this_machine
from localstack.java import find_java


@pytest.fixture(scope="module")
def session():
    """Return a function that gives this machine's description, with changes."""
    known = this_machine(java_home=find_java().home) | {"smoke": False}
    return lambda **changes: known | changes


def test_the_machine_is_described_in_types_of_json(session):
    known = json.loads(json.dumps(session()))
    assert known["cores"] >= 1
    assert known["versions"]["numpy"]
    assert described([known], [0.1, 1.25])[-1].endswith("0.1 to 1.2")


def test_slices_at_several_commits_and_smoke_runs_are_told(session):
    sessions = [session(commit="abc", at="1"), session(commit="def with changes", at="2")]
    text = "\n".join(described(sessions, []))
    assert "commit abc, def with changes; 1 to 2, in 2 slices" in text
    assert "SMOKE" not in text
    assert "NOT ONE MACHINE" not in text
    assert "SMOKE" in "\n".join(described([*sessions, session(smoke=True)], []))


def test_figures_of_two_machines_are_not_passed_off_as_one(session):
    text = "\n".join(described([session(cpu="8086"), session(cpu="68000")], []))
    assert "NOT ONE MACHINE: 8086, 68000" in text


def test_the_processor_s_name_fits_a_file_name():
    assert all(each.isalnum() or each == "-" for each in short_cpu_name())
