"""Run the release tier: every part, or the parts whose guarded files have changed.

``python -m tests.release`` runs all parts, ``python -m tests.release PART ...`` the named test
files, ``python -m tests.release --changed`` those whose files differ from the ones with which the
part last passed. ``passed.json`` keeps their digests.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import subprocess
import sys
from pathlib import Path

from tests.support import CHECKOUT

PASSED = Path(__file__).with_name("passed.json")

LOCKED = ("requirements.lock",)
SET_UP = (*LOCKED, "localstack/bootstrap.sh", "localstack/clean-root.sh")
NODE = (
    *(*SET_UP, "toolkit/cloud/bundle.py", "toolkit/cloud/node/*"),
    *("localstack/instance.py", "localstack/imds.py"),
)
PROMOTION = tuple(
    f"toolkit/{module}.py"
    for module in (
        *("cli/promote", "cloud/follow", "cloud/journal", "cloud/launch", "cloud/promotion"),
        *("cloud/status", "cloud/sweep"),
    )
)
HELPERS = ("tests/release/conftest.py", "tests/support/promotion*.py")
REHEARSAL = ("toolkit/cloud/rehearsal.py", "tests/support/real_rehearsals.py")
GUARDED = {
    "test_bare_machine.py": (*SET_UP, "requirements-dev.lock", "localstack/install.py"),
    "test_boot.py": NODE,
    "test_kill_points.py": (*PROMOTION, *HELPERS),
    "test_listing.py": ("toolkit/images/listing.py", "benchmarks/listing.py"),
    "test_networks.py": (*LOCKED, "toolkit/models/*", "toolkit/sparkdl/named_image.py"),
    "test_promote.py": (*NODE, *PROMOTION, *HELPERS, "toolkit/cloud/rehearsal.py"),
    "test_rehearsal.py": (*NODE, *REHEARSAL),
    "test_seed_workflow.py": (*LOCKED, "toolkit/sparkdl/*"),
    "test_sparkdl_notebook.py": (*LOCKED, "docs/notebooks/*", "toolkit/sparkdl/*"),
}
"""Test file of a part -> patterns of the files it guards, besides its own."""


def digest(part: str) -> str:
    """Return the SHA-256 of the names and contents of all files that a part guards."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    names = {name for name in listed.stdout.splitlines() if (CHECKOUT / name).is_file()}
    guarded: set[str] = set()
    for pattern in (f"tests/release/{part}", *GUARDED[part]):
        matching = fnmatch.filter(names, pattern)
        if not matching:
            raise SystemExit(f"GUARDED names {pattern} for {part}, which is no file here.")
        guarded.update(matching)
    found = hashlib.sha256()
    for name in sorted(guarded):
        content = hashlib.sha256((CHECKOUT / name).read_bytes()).hexdigest()
        found.update(f"{name} {content}\n".encode())
    return found.hexdigest()


def main(arguments: list[str]) -> int:
    """Run the parts and record those that pass; return 1 if one fails."""
    only_changed = "--changed" in arguments
    named = [argument for argument in arguments if argument != "--changed"]
    passed = json.loads(PASSED.read_text()) if PASSED.exists() else {}
    failed = []
    for part in named or GUARDED:
        if only_changed and passed.get(part) == digest(part):
            print(f"{part}: its files have not changed since it passed", flush=True)
            continue
        command = [sys.executable, "-m", "pytest", "-n", "0", f"tests/release/{part}"]
        if subprocess.run(command, cwd=CHECKOUT, check=False).returncode:
            failed.append(part)
            continue
        passed[part] = digest(part)
        PASSED.write_text(json.dumps(passed, indent=2, sort_keys=True) + "\n")
    print(f"Failed: {', '.join(failed)}" if failed else "No part has failed.")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
