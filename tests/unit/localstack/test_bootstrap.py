"""The set-up script, function by function: what it chooses, refuses and hands over."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from typing import TYPE_CHECKING

import pytest

from tests.support import CHECKOUT
from tests.support.boot_machine import LOCKS, Machine, boot_machine

if TYPE_CHECKING:
    from collections.abc import Iterator

NOBODY = 65534
STEPS = {
    "install_system_packages": "System packages",
    "install_uv": "uv",
    "make_environment": "Python",
    "install_packages": "Python packages",
    "install_jars": "Jars for S3A",
    "archive_classes": "Archive of Spark's classes",
    "install_minio": "MinIO",
}
# Every step succeeds without doing anything; the packages say which lock they come from.
PRETENDED = "; ".join(f"{name}() {{ :; }}" for name in STEPS) + (
    '; install_packages() { outcome="from $lock"; }; hand_over() { printf \'%s\n\' "$PWD" "$@"; }'
)


@pytest.fixture
def machine() -> Iterator[Machine]:
    with boot_machine() as made:
        yield made


def test_help_names_the_commands():
    told = subprocess.run(
        ["bash", CHECKOUT / "localstack" / "bootstrap.sh", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    commands = re.findall(r"^  ([a-z]+)   ", told.stdout, re.MULTILINE)
    assert commands == ["run", "dev", "test", "setup", "node"]


def test_unknown_command_is_a_wrong_request(machine):
    asked = machine.bootstrap("instal")
    assert asked.returncode == 2
    assert asked.stderr.startswith("Usage:")


def told_steps(stderr: str) -> list[tuple[str, str]]:
    return re.findall(r"^\[(\d/\d)\] ([^(\n]*?)(?: [\d.]+| \(.*\))? … ", stderr, re.MULTILINE)


def test_dev_takes_every_step_with_the_locked_tools_and_says_how_to_test(machine):
    for cwd, there in (
        ("/", f"cd {str(machine.checkout).replace(' ', chr(92) + ' ')} && "),
        (machine.checkout, ""),
    ):
        done = machine.bootstrap("dev", replaced=PRETENDED, cwd=cwd)
        assert done.returncode == 0, done.stderr
        assert told_steps(done.stderr) == [
            (f"{number}/7", title) for number, title in enumerate(STEPS.values(), 1)
        ]
        assert "Python packages … from requirements-dev.lock, " in done.stderr
        last = done.stderr.splitlines()[-1]
        assert last == f"Ready. Run the tests: {there}source .venv/bin/activate && pytest"
        assert done.stdout == ""  # it hands over to nothing


def test_run_takes_the_lock_without_the_tools_unless_they_are_there(machine):
    done = machine.bootstrap("run", "a b", "--top=3", replaced=PRETENDED)
    assert "from requirements.lock, " in done.stderr
    program = str(machine.checkout / ".venv" / "bin" / "toolkit")
    assert done.stdout.splitlines() == ["/", program, "run", "a b", "--top=3"]
    stamp = machine.checkout / ".venv" / "packages.stamp"
    stamp.parent.mkdir()
    stamp.write_text("requirements-dev.lock 0123")
    assert "from requirements-dev.lock, " in machine.bootstrap("run", replaced=PRETENDED).stderr


def test_test_hands_all_tiers_but_release_and_the_users_arguments_to_pytest(machine):
    done = machine.bootstrap("test", "tests/e2e", "-k", "a b", replaced=PRETENDED)
    assert "from requirements-dev.lock, " in done.stderr
    folder, program, *options = done.stdout.splitlines()
    assert (folder, program) == (str(machine.checkout), f"{machine.checkout}/.venv/bin/pytest")
    tiers = ["-o", "testpaths=tests", "--ignore=tests/release"]
    assert options == [*tiers, "tests/e2e", "-k", "a b"]


def test_setup_hands_over_to_nothing(machine):
    done = machine.bootstrap("setup", replaced=PRETENDED)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.splitlines()[-1].startswith("[7/7] MinIO ")


@pytest.mark.parametrize("lock", LOCKS)
def test_locks_have_hashes_and_no_addresses(lock):
    text = (CHECKOUT / lock).read_text()
    assert "://" not in text
    assert "index-url" not in text.replace("--no-emit-index-url", "")
    entries = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)[1:]
    for entry in entries:
        assert re.match(r"[a-z0-9.-]+(\[[a-z,]+\])?==", entry), entry
        assert "--hash=sha256:" in entry, entry


def test_both_locks_agree_and_hold_every_dependency():
    run, everything = (
        dict(re.findall(r"^([a-z0-9.-]+)==(\S+)", (CHECKOUT / lock).read_text(), re.MULTILINE))
        for lock in LOCKS[:2]
    )
    assert run.items() <= everything.items()
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    wanted = project["project"]["dependencies"]
    extras = project["project"]["optional-dependencies"]
    wanted += [each for each in extras["local"] if each != "fruits-toolkit[int8]"] + extras["int8"]
    assert {re.match(r"[a-z0-9-]+", each)[0] for each in wanted} <= run.keys()
    groups = project["dependency-groups"]
    tools = [each for each in groups["dev"] + groups["test"] if isinstance(each, str)]
    assert {re.match(r"[a-z0-9-]+", each)[0] for each in tools} <= everything.keys()


def test_without_root_and_sudo_it_prints_the_apt_line_and_stops(machine):
    for folder in (machine.folder / "home", machine.folder / "state"):
        folder.mkdir()
        folder.chmod(0o777)
    before: tuple[str, ...] = ()
    if os.geteuid() == 0:
        before = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    stopped = machine.bootstrap(
        "run",
        replaced="find_java() { return 1; }; find_host_python() { return 1; }; "
        "java_package() { echo openjdk-17-jre-headless; }; sudo() { return 1; }",
        before=before,
    )
    assert stopped.returncode == 2
    assert (
        "\n    apt-get update && apt-get install --yes --no-install-recommends"
        " python3 python3-venv openjdk-17-jre-headless\n"
    ) in stopped.stderr
    assert stopped.stdout == ""


def test_rehearsal_names_what_is_missing_and_installs_nothing_even_as_root(machine):
    machine.env["TOOLKIT_REHEARSAL"] = str(machine.folder)
    stopped = machine.bootstrap(
        "setup",
        replaced="find_host_python() { return 1; }; sudo() { echo SUDO >&3; }; "
        "apt-get() { echo APT >&3; }",
    )
    assert stopped.returncode == 2
    assert "installs nothing on this machine, and these are missing: python3 " in stopped.stderr
    assert "sudo apt-get install --yes --no-install-recommends python3 " in stopped.stderr
    assert "SUDO" not in stopped.stderr
    assert "APT" not in stopped.stderr


def test_java_package_is_one_that_the_release_has(machine):
    releases = {
        "ID=debian VERSION_ID=12": "openjdk-17-jre-headless",
        "ID=debian VERSION_ID=13": "openjdk-21-jre-headless",
        "ID=ubuntu VERSION_ID=24.04": "openjdk-17-jre-headless",
    }
    files = [machine.folder / f"release-{number}" for number in range(len(releases))]
    for file, release in zip(files, releases, strict=True):
        file.write_text(release)
    told = machine.bootstrap(
        "setup",
        replaced=f"for os_release in {machine.folder}/release-*; do java_package; done; exit",
    )
    assert told.stdout.splitlines() == list(releases.values())


def test_java_is_used_when_spark_and_hadoop_run_on_it(machine):
    versions = {
        "1.8.0_402": False,
        "11.0.2": False,
        "17.0.15": True,
        "21.0.1": True,
        "24.0.1": False,
    }
    for version in versions:
        program = machine.folder / version / "bin" / "java"
        program.parent.mkdir(parents=True)
        program.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\" 2024-01-01' >&2\n")
        program.chmod(0o755)
    found = machine.bootstrap(
        "setup",
        replaced=f"for version in {' '.join(versions)}; do "
        f'JAVA_HOME={machine.folder}/$version; echo "$version $(find_java)"; done; exit',
    )
    taken = dict(line.split(" ", maxsplit=1) for line in found.stdout.splitlines())
    ours = {version: taken[version].startswith(str(machine.folder)) for version in versions}
    assert ours == versions


def test_node_in_a_checkout_is_a_wrong_request(machine):
    asked = machine.bootstrap("node")
    assert asked.returncode == 2
    assert f"{machine.checkout} is no unpacked bundle: it has no manifest.json.\n" in asked.stderr
    assert "bash localstack/bootstrap.sh setup" in asked.stderr
    assert not (machine.folder / "home").exists()
