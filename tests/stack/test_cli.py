"""The command line, in this process, on the stack that runs."""

from __future__ import annotations

import json

import pytest

from toolkit.folders import cache_folder


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
