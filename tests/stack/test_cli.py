"""The command line, in this process, on the stack that runs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from toolkit.cli.place import Place
from toolkit.cli.run import _print_summary
from toolkit.folders import cache_folder
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


def test_status_shows_a_living_worker(toolkit) -> None:
    done = toolkit("status", "--json")
    assert done.returncode == 0
    status = json.loads(done.stdout)
    assert status["running"]
    assert status["workers_alive"] == 1
    assert {service["name"] for service in status["services"]} == {"minio", "master", "worker"}


def test_up_on_a_running_stack_changes_nothing(toolkit) -> None:
    before = json.loads(toolkit("status", "--json").stdout)
    after = json.loads(toolkit("up", "--json").stdout)
    assert [service["pid"] for service in before["services"]] == [
        service["pid"] for service in after["services"]
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "/no/such/folder"), "/no/such/folder"),
        (("run", "ftp://host/x"), "s3://bucket/prefix"),
        (("run", "--model", "ResNet51"), "ResNet50"),
        (("run", "--components", "1.5"), "1.5"),
        (("run", "--weights", "random:x"), "random:x"),
        (("run", "--engine", "torch"), "openvino"),
        (("run", "--limit", "0"), "limit"),
        (("run", "--profile", "nope"), "nope"),
        (("run", "--profile", "aws"), "no-such-profile"),
        (("run", "--output", "s3a://BUCKET/images"), "would be deleted"),
        (("run", "--output", "s3a://BUCKET"), "would be deleted"),
        (("logs", "no-such-service"), "no-such-service"),
        (("report", "no-such-run"), "no-such-run"),
        (("no-such-command",), "no-such-command"),
    ],
)
def test_wrong_request_exits_with_2_and_names_the_value(toolkit, stack, arguments, said) -> None:
    done = toolkit(*(each.replace("BUCKET", stack.bucket) for each in arguments))
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


def test_debug_shows_the_traceback(toolkit) -> None:
    assert "Traceback" in toolkit("--debug", "run", "/no/such/folder").stderr


def test_missing_weights_name_every_way_out(toolkit, sample_files, tmp_path) -> None:
    (tmp_path / "jars").symlink_to(cache_folder() / "jars")  # only the weights are missing
    done = toolkit(
        "run",
        str(sample_files[0].parent),
        "--model",
        "ResNet50",
        TOOLKIT_WEIGHTS_URL="http://127.0.0.1:9/",
        TOOLKIT_CACHE=str(tmp_path),
    )
    assert done.returncode == 2
    for way in (str(tmp_path), "models/", "TOOLKIT_WEIGHTS_URL", "as the weights", "random:"):
        assert way in done.stderr


def test_profile_show_hides_secrets(toolkit, stack) -> None:
    done = toolkit("profile", "show", "--json", TOOLKIT_S3__SECRET_ACCESS_KEY="hunter2")
    assert json.loads(done.stdout)["s3"]["bucket"] == stack.bucket
    assert "hunter2" not in done.stdout


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
