"""One boot script for a checkout on WSL2 and for a bundle on EC2, on one bare machine."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.support import CHECKOUT
from toolkit.cloud.bundle import Bundle, make_bundle
from toolkit.cloud.job import NODE_FOLDER, JobDescription
from toolkit.folders import cache_folder
from toolkit.models import DEFAULT_MODEL, model_spec, prepare, resolve_weights
from toolkit.profiles import load_profile

if TYPE_CHECKING:
    from pathlib import Path

BOOT_SCRIPT = "localstack/bootstrap.sh"
# Debian bookworm stands for Ubuntu, whose packages a Debian can't verify and some networks don't
# let through. Where they do: CLEAN_ROOT_OPTIONS="--suite noble", or from a Debian for the first
# time "--suite noble --mirror http://archive.ubuntu.com/ubuntu".
CLEAN_ROOT = [
    *("bash", CHECKOUT / "localstack" / "clean-root.sh"),
    *os.environ.get("CLEAN_ROOT_OPTIONS", "").split(),
]

# What an environment has of ours, and what its machine has been given.
FACTS = """
import importlib.metadata, importlib.util, json, os, toolkit
from pathlib import Path
package = importlib.metadata.distribution("fruits-toolkit")
cache = Path("/root/.cache/fruits-toolkit")
print(json.dumps({
    "toolkit": toolkit.__file__,
    "localstack": importlib.util.find_spec("localstack") is not None,
    "from": json.loads(package.read_text("direct_url.json")),
    "cache": sorted(os.listdir(cache)),
    "s3a": [jar.name for jar in cache.glob("jars/*/hadoop-aws-*.jar")],
    "minio": [program.name for program in cache.glob("bin/minio-*")],
    "state": sorted(os.listdir("/root/.local/state/fruits-toolkit")),
}))
"""

# WSL2 first: a person's shell, and a checkout at home, up to a run; the network is this machine's,
# where other stacks may hold the usual ports. Then EC2: cloud-init gives user-data a PATH
# and hardly more. Before that goes all that WSL2 has been given, but for the system's packages and
# uv's downloads: apt and 2 GB from the network would tell no more the second time.
FREE_PORTS = " ".join(
    f"TOOLKIT_STACK__{port}_PORT=0"
    for port in ("MINIO", "MINIO_CONSOLE", "SPARK", "SPARK_UI", "WORKER_UI")
)
SCRIPT = f"""
look_at() {{
    cd /
    "$1/.venv/bin/toolkit" --version
    "$1/.venv/bin/toolkit" --help >/dev/null
    "$1/.venv/bin/python" -c "$facts"
    cd "$OLDPWD"
}}
facts=$1
mkdir -p ~/.cache
mv cache ~/.cache/fruits-toolkit
mv checkout ~/checkout

export {FREE_PORTS}
bash ~/checkout/{BOOT_SCRIPT} run --limit 24 --json >~/first.json
bash ~/checkout/{BOOT_SCRIPT} run --limit 24 --json >~/second.json
~/checkout/.venv/bin/toolkit down >&2
grep --no-filename --only-matching '"featurized": [0-9]*' ~/first.json ~/second.json
look_at ~/checkout

unset {FREE_PORTS.replace("=0", "")}
rm -r ~/.cache/fruits-toolkit ~/.local/state/fruits-toolkit
unset HOME TERM LANG
bash {BOOT_SCRIPT} node
bash {BOOT_SCRIPT} node
look_at {NODE_FOLDER}
"""


class Step(NamedTuple):
    """What the boot script tells of a step."""

    place: str
    title: str
    outcome: str
    seconds: float


def steps_in(told: str) -> list[Step]:
    lines = re.findall(r"^\[(\d/\d)\] (.*) … (.*), (?:(\d+) min )?([\d.]+) s$", told, re.MULTILINE)
    return [
        Step(place, title, outcome, 60 * int(minutes or 0) + float(seconds))
        for place, title, outcome, minutes, seconds in lines
    ]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Return a real bundle: this checkout's wheel and the default model."""
    checked = subprocess.run(
        [*CLEAN_ROOT, "--check"], stderr=subprocess.PIPE, text=True, check=False
    )
    if checked.returncode:
        pytest.fail(checked.stderr.strip())  # a skipped part would count as passed
    spec, profile = model_spec(DEFAULT_MODEL), load_profile("aws")
    weights = resolve_weights(spec, "imagenet", cache=cache_folder())
    job = JobDescription.of(
        prepare(spec, weights, cache=cache_folder()),
        profile,
        images="s3a://fruits/images/sample_images",
        weights="imagenet",
    )
    return make_bundle(tmp_path_factory.mktemp("promotion") / "bundle", job, profile=profile)


@pytest.fixture(scope="module")
def files(bundle: Bundle) -> Path:
    """Return a folder with all that comes to the machine: the bundle, a checkout, a cache."""
    copy_checkout(bundle.folder / "checkout")
    # MinIO as this user's cache has it. Compiling it takes 3 to 10 minutes, and this user's has
    # been compiled by the same script; where the cache has none, the machine does it.
    programs = bundle.folder / "cache" / "bin"
    programs.mkdir(parents=True)
    for built in (cache_folder() / "bin").glob("minio-*"):
        shutil.copy2(built, programs)
    return bundle.folder


def copy_checkout(target: Path) -> None:
    """Copy what a clone would have, and what is not committed yet."""
    target.mkdir()
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    present = [name for name in listed.stdout.split("\0") if name and (CHECKOUT / name).exists()]
    copy = ["cp", "--parents", "--no-dereference", "--target-directory", target, "--"]
    subprocess.run([*copy, *present], cwd=CHECKOUT, check=True)


@pytest.mark.timeout(1800)  # packages for 2 GB are fetched once, and installed twice
def test_one_script_sets_up_a_bare_machine_for_wsl2_and_for_ec2(bundle, files, tmp_path):
    script = (files / BOOT_SCRIPT).read_bytes()
    assert script == (files / "checkout" / BOOT_SCRIPT).read_bytes()

    log = tmp_path / "told.log"
    with log.open("wb") as told:
        done = subprocess.run(
            [*CLEAN_ROOT, "--files", files, "bash", "-euc", SCRIPT, "bash", FACTS],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=told,
            text=True,
            check=False,
        )
    assert done.returncode == 0, log.read_text()[-4000:]

    steps = steps_in(log.read_text())
    wsl2, wsl2_again, ec2, ec2_again = steps[:7], steps[7:14], steps[14:18], steps[18:]
    for seven in (wsl2, wsl2_again):
        assert [step.place for step in seven] == [f"{number}/8" for number in range(1, 8)]
    for four in (ec2, ec2_again):
        assert [step.place for step in four] == [f"{number}/4" for number in range(1, 5)]

    shared = [step.title for step in ec2]
    assert shared[:1] + shared[2:] == ["System packages", "Python", "Python packages"]
    assert shared == [step.title for step in wsl2[:4]]
    assert wsl2[0].outcome.startswith("installed ca-certificates python3 python3-venv openjdk-")
    assert [step.outcome for step in wsl2[4:]] == ["ready", "ready", "ready"]
    assert [step.outcome for step in ec2[:1]] == ["all there"]
    assert [step.outcome for step in ec2[1:]] == [step.outcome for step in wsl2[1:4]]
    for again in (wsl2_again, ec2_again):
        outcomes = ["all there", "there already", "there already", "up to date"]
        assert [step.outcome for step in again[:4]] == outcomes
    assert sum(step.seconds for step in wsl2_again) < 10
    assert sum(step.seconds for step in ec2_again) < 5

    first, second, version, facts, version_on_ec2, facts_on_ec2 = done.stdout.splitlines()
    assert first == second == '"featurized": 24'
    wheel = bundle.manifest.wheel
    assert version == version_on_ec2 == wheel.split("-")[1]

    found = json.loads(facts)
    assert found["toolkit"] == "/root/checkout/toolkit/__init__.py"
    assert found["from"] == {"url": "file:///root/checkout", "dir_info": {"editable": True}}
    assert found["localstack"]
    assert len(found["s3a"]) == 1
    assert len(found["minio"]) == 1

    found = json.loads(facts_on_ec2)
    assert found["toolkit"].startswith(f"{NODE_FOLDER}/.venv/lib/")
    assert found["from"]["url"] == f"file://{NODE_FOLDER}/{wheel}"
    assert "dir_info" not in found["from"]  # an editable or a folder's
    assert not found["localstack"]
    # No jars, no class archive, no MinIO: uv alone, and a Python where the system had none.
    assert set(found["cache"]) <= {"uv", "python"}
    assert found["state"] == ["logs"]
