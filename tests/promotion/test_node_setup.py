"""A bundle on a machine as EC2 gives it: bare, as root, without HOME, without a checkout."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from toolkit.cloud.bundle import Bundle, make_bundle
from toolkit.cloud.job import NODE_FOLDER, JobDescription
from toolkit.folders import cache_folder
from toolkit.models import DEFAULT_MODEL, model_spec, prepare, resolve_weights
from toolkit.profiles import load_profile

CLEAN_ROOT = Path(__file__).parents[2] / "localstack" / "clean-root.sh"

# Run in `/`, with the bundle's Python: what it has of ours, and what the machine has been given.
FACTS = """
import importlib.metadata, importlib.util, json, os, toolkit
package = importlib.metadata.distribution("fruits-toolkit")
print(json.dumps({
    "toolkit": toolkit.__file__,
    "localstack": importlib.util.find_spec("localstack") is not None,
    "from": json.loads(package.read_text("direct_url.json")),
    "cache": sorted(os.listdir("/root/.cache/fruits-toolkit")),
    "state": sorted(os.listdir("/root/.local/state/fruits-toolkit")),
}))
"""

SCRIPT = f"""
bash localstack/bootstrap.sh node
bash localstack/bootstrap.sh node
cd /
{NODE_FOLDER}/.venv/bin/toolkit --version
{NODE_FOLDER}/.venv/bin/toolkit --help >/dev/null
{NODE_FOLDER}/.venv/bin/python -c '{FACTS}'
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Return a real bundle: this checkout's wheel and the default model."""
    spec, profile = model_spec(DEFAULT_MODEL), load_profile("aws")
    weights = resolve_weights(spec, "imagenet", cache=cache_folder())
    job = JobDescription.of(
        prepare(spec, weights, cache=cache_folder()),
        profile,
        images="s3a://fruits/images/sample_images",
        weights="imagenet",
    )
    return make_bundle(tmp_path_factory.mktemp("promotion") / "bundle", job, profile=profile)


@pytest.mark.slow
@pytest.mark.timeout(1800)  # packages for 2 GB are fetched and installed
def test_bare_machine_is_set_up_from_a_bundle_and_the_second_time_at_once(bundle):
    clean_root = ["bash", CLEAN_ROOT, "--files", bundle.folder]
    checked = subprocess.run(
        [*clean_root, "--check"], stderr=subprocess.PIPE, text=True, check=False
    )
    if checked.returncode:
        pytest.skip(checked.stderr.strip())
    # cloud-init gives user-data a PATH and hardly more; clean-root.sh passes a proxy on as well.
    nearly_empty = ["env", "--unset=HOME", "--unset=TERM", "--unset=LANG"]
    done = subprocess.run(
        [*clean_root, *nearly_empty, "bash", "-euc", SCRIPT],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]

    steps = re.findall(
        r"^\[(\d)/4\] (.*) … (.*), (?:\d+ min )?([\d.]+) s$", done.stderr, re.MULTILINE
    )
    first, second = steps[:4], steps[4:]
    assert [title for _, title, _, _ in first[:1] + first[2:]] == [
        "System packages",
        "Python",
        "Python packages",
    ]
    assert first[0][2].startswith("installed ca-certificates python3 python3-venv openjdk-")
    outcomes = ["all there", "there already", "there already", "up to date"]
    assert [outcome for _, _, outcome, _ in second] == outcomes
    assert sum(float(seconds) for *_, seconds in second) < 5

    version, facts = done.stdout.splitlines()
    wheel = bundle.manifest.wheel
    assert version == wheel.split("-")[1]
    found = json.loads(facts)
    assert found["toolkit"].startswith(f"{NODE_FOLDER}/.venv/lib/")
    assert found["from"]["url"] == f"file://{NODE_FOLDER}/{wheel}"
    assert "dir_info" not in found["from"]  # an editable or a folder's
    assert not found["localstack"]
    # No jars, no class archive, no MinIO: uv alone, and a Python where the system had none.
    assert set(found["cache"]) <= {"uv", "python"}
    assert found["state"] == ["logs"]
