"""The command line as a user calls it, in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

HEAVY = ("tensorflow", "openvino", "pyspark", "pandas", "numpy", "pyarrow", "pydantic", "boto3")


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
