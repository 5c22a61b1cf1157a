"""The command line as a user calls it, in a process of its own."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, suppress

HEAVY = ("tensorflow", "openvino", "pyspark", "pandas", "numpy", "pyarrow", "pydantic", "boto3")
SETTINGS = '[profiles.aws.s3]\nbucket = "mine"\nregion = "eu-central-1"\n'


def test_interrupted_run_says_what_it_keeps_and_is_continued(
    toolkit_process, toolkit, stack_environment, sample_files
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
    newest = json.loads(toolkit("runs", "--json").stdout)[0]
    assert (newest["status"], newest["counts"]["listed"]) == ("failed", 25)

    continued = toolkit_process(*asked, "--json")

    assert continued.returncode == 0, continued.stderr
    record = json.loads(continued.stdout)
    assert record["run_id"] == newest["run_id"]
    assert f"Run {newest['run_id']} goes on from where it ended" in continued.stderr
    assert " of 25 images were done before" in continued.stderr
    assert "WARN" not in continued.stderr
    assert record["status"] == "done"
    assert record["counts"] == {"listed": 25, "featurized": 25, "quarantined": 0}
    assert record["explained_variance"] >= 0.95
    assert (record["model"], record["dimensions"]) == ("EfficientNetLite0", 1280)
    assert not record["random_weights"]


def test_ctrl_c_leaves_the_settings_as_they_were(tmp_path) -> None:
    file = tmp_path / "toolkit.toml"
    file.write_text(SETTINGS, encoding="utf-8")
    with ExitStack() as exits:
        keyboard, terminal = os.openpty()
        exits.callback(os.close, keyboard)
        exits.callback(os.close, terminal)
        process = subprocess.Popen(
            [sys.executable, "-m", "toolkit", "profile", "init"],
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            cwd=tmp_path,
        )
        exits.callback(process.wait)
        exits.callback(process.kill)
        read_until(keyboard, "S3 bucket")
        os.write(keyboard, b"new\n")
        read_until(keyboard, "AWS region")
        while process.poll() is None:  # one that comes just before the reading begins is lost
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(5)
        said = read_until(keyboard, "is as it was")
        assert process.returncode == 1
    assert file.name in said
    assert file.read_text() == SETTINGS


def read_until(descriptor: int, text: str) -> str:
    """Read a terminal until a text has come."""
    told, end = "", time.monotonic() + 60
    while text not in told:
        ready, _, _ = select.select([descriptor], [], [], max(0, end - time.monotonic()))
        assert ready, f"{text!r} did not come: {told!r}"
        told += os.read(descriptor, 4096).decode()
    return told


def test_profile_commands_import_botocore_for_aws_alone() -> None:
    program = (
        "import sys\nfrom toolkit.cli.main import app\n"
        "try:\n    app(['profile', 'show', 'local'])\nexcept SystemExit:\n    pass\n"
        "print([name for name in ('botocore', 'tomlkit') if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stderr.strip() == "[]"


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
