"""Memory that listings take, each in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.support import CHECKOUT


def listed_by_the_benchmark(*counts: int) -> list[dict]:
    command = [sys.executable, "-m", "benchmarks.listing", "--json", "--images", *map(str, counts)]
    done = subprocess.run(command, cwd=CHECKOUT, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)
