"""The reference of `toolkit.sparkdl`: as the docstrings are, complete, and with links that lead."""

from __future__ import annotations

import re

import pytest

from docs.reference import PAGE, reference, topics
from toolkit import sparkdl


@pytest.fixture(scope="module")
def entries():
    return [entry for each in topics().values() for entry in each]


@pytest.fixture(scope="module")
def page():
    return reference()


def test_the_page_is_what_the_docstrings_say(page):
    assert PAGE.read_text(encoding="utf-8") == page, (
        "docs/sparkdl-reference.md is not of these docstrings: `just reference` makes it anew."
    )


def test_all_public_names_are_in_it(entries, page):
    functions = {f"imageIO.{name}" for name in sparkdl.imageIO.__all__}
    named = functions.union(sparkdl.__all__) - {"imageIO"}
    assert named <= {entry.name for entry in entries}
    assert named <= {*re.findall("^### (.*)$", page, re.MULTILINE)}


def test_whatever_can_be_called_says_what_it_does_and_takes(entries):
    for entry in entries:
        for each in [entry, *entry.methods, *entry.properties]:
            assert each.sections, f"{each.name} has no docstring"
            described = {
                parameter.name
                for section in each.sections
                if section.kind.value in {"parameters", "attributes"}
                for parameter in section.value
            }
            missing = {*each.parameters} - described
            assert each.is_gone or not missing, f"{each.name} does not describe {missing}"


def test_docstrings_describe_nothing_that_is_not_there(caplog):
    entries = [entry for each in topics().values() for entry in each]
    for entry in entries:
        assert all(each.sections for each in [entry, *entry.methods])
    assert caplog.messages == []


def test_setters_and_getters_are_there(entries):
    stages = [entry for entry in entries if entry.is_stage]
    assert len(stages) == 7
    for stage in stages:
        names = {name for names in stage.accessors.values() for name in names}
        assert {"setInputCol", "setTFInputGraph"} & names
        for name in names:
            assert callable(getattr(getattr(sparkdl, stage.name), name))


def test_what_it_says_of_all_stages_holds(entries):
    for stage in (getattr(sparkdl, entry.name) for entry in entries if entry.is_stage):
        for name in ("setParams", "badRows", "save", "write", "load"):
            assert hasattr(stage, name)


def test_links_lead_to_headings(page):
    prose = re.sub(r"```.*?```", "", page, flags=re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", prose, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings}
    links = {*re.findall(r"\]\(#([^)]+)\)", page)}
    assert links
    assert links <= anchors


def test_nothing_private_is_shown(page):
    assert re.findall(r"[ =\[]_[A-Za-z]\w+", page) == []
