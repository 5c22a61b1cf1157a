"""What the command line imports, and what it says where there is no checkout."""

from __future__ import annotations

import subprocess
import sys

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
