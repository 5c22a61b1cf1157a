"""The command line as a user calls it: a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from toolkit.folders import cache_folder

HEAVY = ("tensorflow", "openvino", "pyspark", "pandas", "numpy", "pyarrow", "pydantic", "boto3")


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys\nfrom toolkit.cli.main import app\n"
        "try:\n    app(['--help'])\nexcept SystemExit:\n    pass\n"
        f"print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    for command in ("up", "down", "status", "logs", "doctor", "run", "report", "runs", "compare"):
        assert command in done.stdout
    assert done.stderr.strip() == "[]"


@pytest.mark.slow
def test_run_prints_its_record_as_json(toolkit_process, sample_files) -> None:
    done = toolkit_process("run", str(sample_files[0].parents[1]), "--limit", "24", "--json")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["status"] == "done"
    assert record["counts"] == {"listed": 24, "featurized": 24, "quarantined": 0}
    assert record["model"] == "EfficientNetLite0"
    assert record["explained_variance"] >= 0.95
    assert "WARN" not in done.stderr


@pytest.mark.slow
def test_interrupted_run_says_what_it_keeps_and_is_continued(
    toolkit_process, stack_environment, sample_files
) -> None:
    asked = ("run", str(sample_files[0].parents[1]), "--limit", "25")
    with subprocess.Popen(
        [sys.executable, "-m", "toolkit", *asked],
        env=os.environ | stack_environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            while "Spark session" not in process.stderr.readline():  # then the run is recorded
                assert process.poll() is None
            process.send_signal(signal.SIGINT)
            told = process.communicate(timeout=120)[1]
        finally:
            process.kill()
    assert process.returncode == 130
    assert "Interrupted. What is done stays" in told
    newest = json.loads(toolkit_process("runs", "--json").stdout)[0]
    assert (newest["status"], newest["counts"]["listed"]) == ("failed", 25)
    continued = toolkit_process(*asked, "--json")
    assert continued.returncode == 0, continued.stderr
    assert json.loads(continued.stdout)["run_id"] == newest["run_id"]
    assert f"Run {newest['run_id']} goes on from where it ended" in continued.stderr
    assert " of 25 images were done before" in continued.stderr


@pytest.mark.slow
def test_run_of_resnet50_with_random_weights_is_marked_so(toolkit_process, sample_files) -> None:
    folder = str(sample_files[0].parents[1])
    done = toolkit_process(
        "run", folder, "--limit", "12", "--model", "resnet50", "--weights", "random:0"
    )
    assert done.returncode == 0, done.stderr
    assert "ResNet50" in done.stdout
    assert "RANDOM WEIGHTS" in done.stdout
    newest = json.loads(toolkit_process("runs", "--json").stdout)[0]
    assert (newest["random_weights"], newest["dimensions"]) == (True, 2048)


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
        (("run", "--output", "s3a://fruits/images"), "would be deleted"),
        (("run", "--output", "s3a://fruits"), "would be deleted"),
        (("logs", "no-such-service"), "no-such-service"),
        (("report", "no-such-run"), "no-such-run"),
        (("no-such-command",), "no-such-command"),
    ],
)
def test_wrong_request_exits_with_2_and_names_the_value(toolkit, arguments, said) -> None:
    done = toolkit(*arguments)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


def test_debug_shows_the_traceback(toolkit) -> None:
    assert "Traceback" in toolkit("--debug", "run", "/no/such/folder").stderr


@pytest.mark.slow
def test_unreadable_images_exit_with_1_and_say_why(toolkit_process, tmp_path) -> None:
    (tmp_path / "Bad").mkdir()
    (tmp_path / "Bad" / "text.jpg").write_text("Hello")
    done = toolkit_process("run", str(tmp_path))
    assert done.returncode == 1
    assert "None of the 1 images could be read" in done.stderr


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


def test_profile_show_hides_secrets(toolkit) -> None:
    done = toolkit("profile", "show", "--json", TOOLKIT_S3__SECRET_ACCESS_KEY="hunter2")
    assert json.loads(done.stdout)["s3"]["bucket"] == "fruits"
    assert "hunter2" not in done.stdout


def test_local_commands_say_that_a_wheel_has_no_stack(tmp_path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "localstack.py").write_text('"""LocalStack, the product."""')
    program = (
        f"import sys; sys.path.insert(0, {str(site)!r}); from toolkit.cli.main import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "up"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "checkout" in done.stderr
