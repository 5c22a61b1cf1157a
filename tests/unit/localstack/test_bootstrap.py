"""The set-up script: what it installs, what it says, and how it ends when it cannot go on."""

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
import tempfile
import threading
import tomllib
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.support import CHECKOUT

if TYPE_CHECKING:
    from collections.abc import Iterator

NODE_FILES = ("requirements.lock", "pyproject.toml", "localstack/bootstrap.sh")
LOCKS = ("requirements.lock", "requirements-dev.lock", "localstack/go-requirements.lock")
TOOLS = Path(sys.executable).parent
NOBODY = 65534
NOWHERE = "http://127.0.0.1:9"  # discard: nothing listens there


@dataclass
class Machine:
    """A copy of what the script reads, in a path with a space, and a home of its own."""

    folder: Path
    env: dict[str, str] = field(default_factory=dict)

    @property
    def checkout(self) -> Path:
        return self.folder / "my checkout"

    def command(self, *call: str, replaced: str = "") -> list[str | Path]:
        """Return the call of a job, some functions of the script replaced."""
        script = self.checkout / "localstack" / "bootstrap.sh"
        return ["bash", "-c", f'source "$1"; shift; {replaced}\nmain "$@"', "bash", script, *call]

    def bootstrap(
        self, *call: str, replaced: str = "", before: tuple[str, ...] = ()
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*before, *self.command(*call, replaced=replaced)],
            env=self.env,
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )


@pytest.fixture
def machine() -> Iterator[Machine]:
    # Not in tmp_path: another user must be able to read it.
    with tempfile.TemporaryDirectory() as folder:
        made = Machine(Path(folder))
        made.folder.chmod(0o755)
        for name in ("pyproject.toml", "localstack/bootstrap.sh", *LOCKS):
            target = made.checkout / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(CHECKOUT / name, target)
        uv = made.folder / "cache" / "uv" / uv_version() / "uv"
        uv.parent.mkdir(parents=True)
        uv.symlink_to(TOOLS / "uv")
        made.env = {
            "PATH": os.environ["PATH"],
            "HOME": str(made.folder / "home"),
            "TOOLKIT_HOME": str(made.folder / "state"),
            "TOOLKIT_CACHE": str(made.folder / "cache"),
            "UV_CACHE_DIR": str(made.folder / "uv-cache"),
            "UV_HTTP_RETRIES": "0",
        }
        yield made


def uv_version() -> str:
    return re.search(r"^uv==(\S+)", (CHECKOUT / LOCKS[0]).read_text(), re.MULTILINE)[1]


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


def test_shell_scripts_pass_shellcheck():
    scripts = [*CHECKOUT.glob("localstack/*.sh"), CHECKOUT / ".ci" / "run"]
    assert len(scripts) == 3
    checked = subprocess.run(
        [TOOLS / "shellcheck", *scripts], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout


def test_help_names_the_commands():
    told = subprocess.run(
        ["bash", CHECKOUT / "localstack" / "bootstrap.sh", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    commands = re.findall(r"^  (run|test|setup|node)\b", told.stdout, re.MULTILINE)
    assert commands == ["run", "test", "setup", "node"]


def test_unknown_command_is_a_wrong_request(machine):
    asked = machine.bootstrap("instal")
    assert asked.returncode == 2
    assert asked.stderr.startswith("Usage:")


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


@pytest.mark.parametrize(
    ("release", "package"),
    [
        ("ID=debian\nVERSION_ID=12", "openjdk-17-jre-headless"),
        ("ID=debian\nVERSION_ID=13", "openjdk-21-jre-headless"),
        ("ID=ubuntu\nVERSION_ID=24.04", "openjdk-17-jre-headless"),
    ],
)
def test_java_package_is_one_that_the_release_has(machine, release, package):
    file = machine.folder / "os-release"
    file.write_text(release)
    told = machine.bootstrap("setup", replaced=f"os_release={file}; java_package; exit")
    assert told.stdout.strip() == package


@pytest.mark.parametrize(
    ("said", "usable"),
    [
        ("1.8.0_402", False),
        ("11.0.2", False),
        ("17.0.15", True),
        ("21.0.1", True),
        ("24.0.1", False),
    ],
)
def test_java_is_used_when_spark_and_hadoop_run_on_it(machine, said, usable):
    program = machine.folder / "jdk" / "bin" / "java"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\necho 'openjdk version \"{said}\" 2024-01-01' >&2\n")
    program.chmod(0o755)
    machine.env["JAVA_HOME"] = str(program.parent.parent)
    found = machine.bootstrap("setup", replaced="find_java; exit")
    assert (found.stdout.strip() == str(program)) is usable


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


@pytest.mark.slow
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
            self.folder / "python.tar.gz", "w:gz", compresslevel=1, dereference=True
        ) as archive:
            archive.add(program, f"python/install/bin/{program.name}")
            archive.add(library, f"python/install/lib/{library.name}", filter=self._wanted)
            for shared in Path(sysconfig.get_config_var("LIBDIR")).glob("libpython3*.so*"):
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
    def _python() -> Iterator[tuple[Path, str]]:
        """Yield what belongs to this Python; its prefix may be /usr, with all that is there."""
        name = f"python{sys.version_info.major}.{sys.version_info.minor}"
        yield Path(sys.base_prefix, "bin", name).resolve(), f"bin/{name}"
        yield Path(os.__file__).parent, f"lib/{name}"
        for library in Path(sysconfig.get_config_var("LIBDIR")).glob(f"lib{name}*.so*"):
            yield library, f"lib/{library.name}"

    @staticmethod
    def _wanted(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        unwanted = {"test", "tests", "idlelib", "site-packages", "dist-packages", "__pycache__"}
        # Debian's standard library links into /etc.
        leads_out = member.issym() and member.linkname.startswith("/")
        return None if leads_out or unwanted & set(Path(member.name).parts) else member

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


@pytest.fixture
def bundle(machine) -> Machine:
    """Return a machine with the files of a bundle, the wheel being a file with a hash."""
    wheel = machine.checkout / "fruits_toolkit-0.1.0-py3-none-any.whl"
    wheel.write_bytes(b"a wheel")
    files = [
        {"path": str(file.relative_to(machine.checkout)), "sha256": sha256(file), "size": 0}
        for file in (wheel, *map(machine.checkout.joinpath, NODE_FILES))
    ]
    manifest = {"wheel": wheel.name, "versions": {}, "files": files}
    (machine.checkout / "manifest.json").write_text(json.dumps(manifest))
    machine.env["UV_DEFAULT_INDEX"] = f"{NOWHERE}/simple"
    return machine


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.slow
def test_node_takes_its_packages_from_the_lock_once_the_bundle_is_verified(bundle):
    failed = bundle.bootstrap("node")
    assert failed.returncode == 1
    steps = re.findall(r"^\[(\d/\d)\] (.*) … ", failed.stderr, re.MULTILINE)
    titles = ["System packages", f"uv {uv_version()}", "Python", "Python packages"]
    assert steps == [(f"{number}/4", title) for number, title in enumerate(titles, 1)]
    assert re.search(
        r"^Failed command: .*uv pip sync .* requirements\.lock $", failed.stderr, re.MULTILINE
    )


@pytest.mark.slow
@pytest.mark.parametrize("damaged", ["fruits_toolkit-0.1.0-py3-none-any.whl", "requirements.lock"])
def test_node_installs_nothing_of_a_damaged_bundle(bundle, damaged):
    with (bundle.checkout / damaged).open("ab") as file:
        file.write(b"\n# one byte too many")
    failed = bundle.bootstrap("node")
    assert failed.returncode == 1
    report = failed.stderr.partition("[4/4] Python packages … failed.\n")[2]
    assert f"\n    | {damaged}: FAILED\n" in f"\n{report}"
    assert "\nFailed command: sha256sum " in report
    assert "\nRemedy: The bundle is damaged" in report
    assert "uv pip" not in report


@pytest.mark.slow
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


def test_node_in_a_checkout_is_a_wrong_request(machine):
    asked = machine.bootstrap("node")
    assert asked.returncode == 2
    assert f"{machine.checkout} is no unpacked bundle: it has no manifest.json.\n" in asked.stderr
    assert "bash localstack/bootstrap.sh setup" in asked.stderr
    assert not (machine.folder / "home").exists()


@pytest.mark.slow
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
