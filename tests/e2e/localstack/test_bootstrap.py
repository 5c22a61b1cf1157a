"""The set-up script as a whole: what it does, says and leaves when a step cannot be done."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.support.boot_machine import NOWHERE, TOOLS, Machine, boot_machine, uv_version

if TYPE_CHECKING:
    from collections.abc import Iterator

NODE_FILES = ("requirements.lock", "pyproject.toml", "localstack/bootstrap.sh")


@pytest.fixture
def machine() -> Iterator[Machine]:
    with boot_machine() as made:
        yield made


def programs_without_python(folder: Path) -> str:
    """Return a PATH of what the script calls, less every Python."""
    folder.mkdir()
    for name in (
        *(
            "bash",
            "cat",
            "dirname",
            "getent",
            "grep",
            "java",
            "ldd",
            "mkdir",
            "mktemp",
            "mv",
            "realpath",
        ),
        *("rm", "sed", "sha256sum", "tail", "tar", "uname"),
    ):
        folder.joinpath(name).symlink_to(shutil.which(name))
    return str(folder)


def test_test_runs_every_tier_but_release_and_what_the_user_names(machine):
    pytest_of_machine = machine.checkout / ".venv" / "bin" / "pytest"
    pytest_of_machine.parent.mkdir(parents=True)
    pytest_of_machine.symlink_to(TOOLS / "pytest")
    tiers = ("unit", "aws", "stack", "tensorflow", "e2e", "release")
    for tier in tiers:
        file = machine.checkout / "tests" / tier / "test_it.py"
        file.parent.mkdir(parents=True)
        file.write_text("def test_it(): pass\ndef test_other(): pass\n")

    def collected(*arguments: str) -> list[str]:
        steps = ("install_system_packages", "install_uv", "make_environment", "install_packages")
        steps += ("install_jars", "archive_classes", "install_minio")
        replaced = "; ".join(f"{step}() {{ :; }}" for step in steps)
        listed = machine.bootstrap("test", "--collect-only", "-q", *arguments, replaced=replaced)
        assert listed.returncode == 0, listed.stdout + listed.stderr
        return re.findall(r"^tests/(\w+)/test_it.py::(\w+)$", listed.stdout, re.MULTILINE)

    both = ("test_it", "test_other")
    assert sorted(collected()) == sorted((tier, it) for tier in tiers[:-1] for it in both)
    assert collected("tests/e2e", "-k", "other") == [("e2e", "test_other")]


def test_failed_step_names_the_command_and_the_remedy(machine):
    machine.env["UV_DEFAULT_INDEX"] = f"{NOWHERE}/simple"
    failed = machine.bootstrap("setup")
    assert failed.returncode == 1
    report = failed.stderr.partition("[4/7] Python packages … failed.\n")[2]
    assert re.search(
        r"^Failed command: .*uv pip sync .* requirements\.lock $", report, re.MULTILINE
    )
    assert "\nRemedy: Check that the Python package index can be reached" in report
    assert f"\nLog: {machine.folder}/state/logs/bootstrap.log\n" in report
    assert failed.stdout == ""


def test_unreachable_python_is_reported_with_the_ways_out(machine):
    machine.env["PATH"] = programs_without_python(machine.folder / "bin")
    machine.env["UV_PYTHON_INSTALL_MIRROR"] = NOWHERE
    failed = machine.bootstrap("setup")
    assert failed.returncode == 1
    assert "[3/7] Python … failed." in failed.stderr
    assert "apt-get install python3.12" in failed.stderr
    assert "UV_PYTHON_INSTALL_MIRROR" in failed.stderr


def test_python_is_downloaded_when_the_system_has_none_in_range(machine):
    machine.env["PATH"] = programs_without_python(machine.folder / "bin")
    with python_server(machine.folder / "served") as listing:
        machine.env["UV_PYTHON_DOWNLOADS_JSON_URL"] = listing
        machine.env["UV_DEFAULT_INDEX"] = f"{NOWHERE}/simple"  # the steps after it do not matter
        stopped = machine.bootstrap("setup")
    assert f"[3/7] Python … Python {platform.python_version()}, " in stopped.stderr
    python = (machine.checkout / ".venv" / "bin" / "python").resolve()
    assert python.is_relative_to(machine.folder / "cache" / "python")


class python_server:  # noqa: N801 - reads as the context manager that it is
    """Serve this machine's Python as uv's download, on loopback."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder

    def __enter__(self) -> str:
        program = Path(sys.executable).resolve()
        library = Path(sysconfig.get_path("stdlib"))
        # Links are followed: in Debian's Python some lead out of the folder.
        with tarfile.open(
            self.folder / "python.tar.gz", "w:gz", compresslevel=0, dereference=True
        ) as archive:
            archive.add(program, f"python/install/bin/{program.name}")
            archive.add(library, f"python/install/lib/{library.name}", filter=self._wanted)
            for shared in Path(sysconfig.get_config_var("LIBDIR")).glob("libpython3*.so.*"):
                archive.add(shared, f"python/install/lib/{shared.name}")
        serve = partial(QuietHandler, directory=self.folder)
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), serve)
        threading.Thread(target=self.server.serve_forever).start()
        address = f"http://127.0.0.1:{self.server.server_port}"
        self.folder.joinpath("python.json").write_text(json.dumps(self._listing(address)))
        return f"{address}/python.json"

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    @staticmethod
    def _wanted(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        # Large, and of no use to uv: the packages, the tests, the static library.
        large = ("site-packages", "dist-packages", "__pycache__", "test", "ensurepip", "config-")
        # Debian's standard library links into /etc.
        leads_out = member.issym() and member.linkname.startswith("/")
        unwanted = any(part.startswith(large) for part in Path(member.name).parts)
        return None if leads_out or unwanted else member

    @staticmethod
    def _listing(address: str) -> dict[str, object]:
        major, minor, patch = sys.version_info[:3]
        machine = platform.machine()
        return {
            f"cpython-{major}.{minor}.{patch}-linux-{machine}-gnu": {
                "name": "cpython",
                "arch": {"family": machine, "variant": None},
                "os": "linux",
                "libc": "gnu",
                "major": major,
                "minor": minor,
                "patch": patch,
                "prerelease": "",
                "url": f"{address}/python.tar.gz",
                "sha256": None,
                "variant": None,
                "build": None,
            }
        }


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def bundle() -> Iterator[Machine]:
    """Return a machine with the files of a bundle, the wheel being a file with a hash."""
    with boot_machine() as machine:
        wheel = machine.checkout / "fruits_toolkit-0.1.0-py3-none-any.whl"
        wheel.write_bytes(b"a wheel")
        files = [
            {"path": str(file.relative_to(machine.checkout)), "sha256": sha256(file), "size": 0}
            for file in (wheel, *map(machine.checkout.joinpath, NODE_FILES))
        ]
        manifest = {"wheel": wheel.name, "versions": {}, "files": files}
        (machine.checkout / "manifest.json").write_text(json.dumps(manifest))
        machine.env["UV_DEFAULT_INDEX"] = f"{NOWHERE}/simple"
        yield machine


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_node_takes_its_packages_from_the_lock_once_the_bundle_is_verified(bundle):
    failed = bundle.bootstrap("node")
    assert failed.returncode == 1
    steps = re.findall(r"^\[(\d/\d)\] (.*) … ", failed.stderr, re.MULTILINE)
    titles = ["System packages", f"uv {uv_version()}", "Python", "Python packages"]
    assert steps == [(f"{number}/4", title) for number, title in enumerate(titles, 1)]
    assert re.search(
        r"^Failed command: .*uv pip sync .* requirements\.lock $", failed.stderr, re.MULTILINE
    )


@pytest.mark.parametrize("damaged", ["fruits_toolkit-0.1.0-py3-none-any.whl", "requirements.lock"])
def test_node_installs_nothing_of_a_damaged_bundle(bundle, damaged):
    file = bundle.checkout / damaged
    good = file.read_bytes()
    file.write_bytes(good + b"\n# one byte too many")
    try:
        failed = bundle.bootstrap("node")
    finally:
        file.write_bytes(good)
    assert failed.returncode == 1
    report = failed.stderr.partition("[4/4] Python packages … failed.\n")[2]
    assert f"\n    | {damaged}: FAILED\n" in f"\n{report}"
    assert "\nFailed command: sha256sum " in report
    assert "\nRemedy: The bundle is damaged" in report
    assert "uv pip" not in report


def test_node_hands_its_arguments_to_the_module_from_where_it_was_called(bundle):
    handed = bundle.bootstrap(
        "node",
        "--promotion",
        "a b",
        replaced='install_packages() { :; }; hand_over() { printf \'%s\n\' "$PWD" "$@"; };',
    )
    assert handed.returncode == 0, handed.stderr
    python = bundle.checkout / ".venv" / "bin" / "python"
    module = ["-P", "-m", "toolkit.cloud.node"]
    assert handed.stdout.splitlines() == ["/", str(python), *module, "--promotion", "a b"]
    assert re.findall(r"^\[(\d/\d)\]", handed.stderr, re.MULTILINE) == [
        f"{number}/5" for number in range(1, 5)
    ]


def test_interrupt_ends_the_step_and_all_its_processes(machine):
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, never answers
        machine.env["UV_DEFAULT_INDEX"] = f"http://127.0.0.1:{silent.getsockname()[1]}/simple"
        running = subprocess.Popen(
            machine.command("setup"),
            env=machine.env,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        silent.settimeout(60)
        with silent.accept()[0]:
            os.killpg(running.pid, signal.SIGINT)
            _, told = running.communicate(timeout=30)
    assert running.returncode == 130
    assert "stopped.\nCall the same command again" in told
    assert not [each for each in psutil.process_iter() if session_of(each) == running.pid]


def session_of(process: psutil.Process) -> int | None:
    try:
        return os.getsid(process.pid)
    except ProcessLookupError:
        return None
