"""The page of a run, looked at as a browser would."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from toolkit import report
from toolkit.errors import JobError
from toolkit.runs import Counts, Owner, RunRecord


@pytest.fixture
def record() -> RunRecord:
    return RunRecord(
        run_id="20260101-000000-abcd",
        status="done",
        profile="local",
        images="s3a://fruits/images/<script>alert(1)</script>",
        model="EfficientNetLite0",
        weights="imagenet",
        weights_sha256="0" * 64,
        random_weights=False,
        engine="openvino",
        precision="f32",
        fingerprint="f",
        owner=Owner("host", 1, 1.0),
        started_at="2026-01-01T00:00:00+00:00",
        counts=Counts(3, 2, 1),
        components=2,
        explained_variance=0.97,
        seconds={"features": 1.5},
        images_per_second=1.3,
    )


class Elements(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)


def test_page_shows_figures_and_a_dot_an_image(record) -> None:
    sample = [("Banana", 0.0, 1.0), ("Apple", 2.0, 3.0)]
    page = report.render(record, np.array([0.9, 0.07]), sample)
    tags = Elements(page).tags
    assert tags.count("circle") == 2
    assert tags.count("polyline") == 1
    assert "97.0 % of the variance" in page
    assert "random" not in page.lower()


def test_names_from_outside_are_escaped(record) -> None:
    page = report.render(record, np.array([1.0]), [("<script>", 0.0, 0.0)])
    assert "script" not in Elements(page).tags


def test_random_weights_are_marked(record) -> None:
    page = report.render(
        replace(record, random_weights=True, weights="random:0"), np.array([1.0]), []
    )
    assert "weights are random (random:0)" in page


def test_record_survives_json_and_unknown_fields(record) -> None:
    text = record.to_json().replace('"run_id"', '"of_a_later_version": 1,\n  "run_id"', 1)
    assert RunRecord.from_json(text) == record


@pytest.mark.parametrize("text", ["{}", "not json", '{"run_id": 1}', "[]"])
def test_what_is_no_record_is_said_to_be_none(text: str) -> None:
    with pytest.raises(JobError, match="no record"):
        RunRecord.from_json(text)
