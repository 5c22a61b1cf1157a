"""The command line, in this process: runs, and what it tells of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from toolkit.cli.place import Place
from toolkit.cli.run import _print_summary
from toolkit.profiles import load_profile


def test_runs_lists_the_newest_first(toolkit, record) -> None:
    done = toolkit("runs", "--json")
    ids = [run["run_id"] for run in json.loads(done.stdout)]
    assert record.run_id in ids
    assert ids == sorted(ids, reverse=True)
    assert record.run_id in toolkit("runs").stdout


def test_compare_says_that_a_run_agrees_with_itself(toolkit, record) -> None:
    done = toolkit("compare", record.run_id, record.run_id, "--json")
    assert done.returncode == 0
    comparison = json.loads(done.stdout)
    assert comparison["shared"] == record.counts.featurized
    assert comparison["least_cosine"] == pytest.approx(1)


def test_report_fetches_the_page(toolkit, record, tmp_path) -> None:
    done = toolkit("report", record.run_id, TOOLKIT_CACHE=str(tmp_path))
    page = Path(done.stdout.strip())
    assert page.is_relative_to(tmp_path)
    assert record.run_id in page.read_text(encoding="utf-8")


def test_unreadable_images_exit_with_1_and_say_why(toolkit_on_spark, tmp_path) -> None:
    (tmp_path / "Bad").mkdir()
    (tmp_path / "Bad" / "text.jpg").write_text("Hello")
    done = toolkit_on_spark("run", str(tmp_path))
    assert done.returncode == 1
    assert "None of the 1 images could be read" in done.stderr


def test_run_of_random_weights_is_marked_so(record, tmp_path, capsys) -> None:
    place = Place(load_profile("local"), tmp_path / "driver.log", ())
    random = replace(record, model="ResNet50", weights="random:0", random_weights=True)
    for each, marked in ((random, True), (record, False)):
        _print_summary(each, place)
        summary = capsys.readouterr().out
        assert each.model in summary
        assert f"{record.components} of 1280 explain" in summary
        assert ("RANDOM WEIGHTS" in summary) == marked
