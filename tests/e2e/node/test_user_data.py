"""Each part of the boot script in a shell: on the store, and AWS's own mock of the metadata."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import psutil
import pytest

from localstack.imds import INSTANCE_ID, RoleCredentials
from tests.support.node_surroundings import Surroundings
from tests.support.waiting import eventually
from toolkit.cloud.bundle import BUNDLES, MANIFEST, BundleFile, Manifest
from toolkit.cloud.node.log import CHUNK_BYTES, NodeLog
from toolkit.cloud.node.user_data import NodeBoot, user_data
from toolkit.cloud.status import BOOT_STAGE, PromotionFolder, Stage, Status
from toolkit.runs import new_run_id

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from toolkit.storage import Storage


@dataclass
class Shell:
    """The script's functions, in a shell with a log and an /opt of its own."""

    script: str
    folder: Path
    env: dict[str, str]

    def run(self, commands: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(commands),
            env=self.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=check,
            timeout=60,
        )

    def command(self, commands: str) -> list[str]:
        source = self.folder / "user-data"
        source.write_text(self.script)
        own = f"source {source}; log={self.log}; home={self.home}; node={INSTANCE_ID}; attempts=3"
        return ["bash", "-c", f"{own}\n{commands}"]

    @property
    def log(self) -> Path:
        return self.folder / "fruits-toolkit.log"

    @property
    def home(self) -> Path:
        return self.folder / "opt"


@pytest.fixture
def promotion(storage: Storage) -> PromotionFolder:
    return PromotionFolder(storage, new_run_id())


@pytest.fixture(scope="module")
def metadata(storage: Storage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Surroundings]:
    """Run one metadata service for all tests that need no other one; its role may do all."""
    surroundings = Surroundings(tmp_path_factory.mktemp("metadata"), storage)
    with surroundings.metadata(surroundings.role()):
        yield surroundings


@pytest.fixture
def bare_shell(surroundings: Surroundings, promotion: PromotionFolder) -> Shell:
    """Return a shell whose metadata service a test has to start."""
    settings = surroundings.storage.settings
    boot = NodeBoot(
        bucket=settings.bucket,
        region=settings.region,
        promotion_id=promotion.promotion_id,
        bundle="0" * 64,
        dead_man_minutes=150,
    )
    surroundings.folder.joinpath("opt").mkdir()
    return Shell(user_data(boot), surroundings.folder, dict(surroundings.env))


@pytest.fixture
def shell(bare_shell: Shell, metadata: Surroundings) -> Shell:
    """Return a shell that finds a metadata service."""
    variable = "AWS_EC2_METADATA_SERVICE_ENDPOINT"
    bare_shell.env[variable] = metadata.env[variable]
    return bare_shell


# --- its parts -----------------------------------------------------------------------------------


def test_credentials_and_name_come_from_imdsv2(bare_shell, surroundings):
    role = surroundings.role()
    with surroundings.metadata(role):
        told = bare_shell.run(
            'load_credentials && printf "%s\\n" "$key_id" "$secret" "$session_token"; '
            "metadata instance-id"
        )
    assert told.stdout.split() == [
        *(role.access_key_id, role.secret_access_key, role.session_token),
        INSTANCE_ID,
    ]


def test_objects_go_there_and_back_signed(shell, storage, promotion, tmp_path):
    content = os.urandom(300_000)
    (tmp_path / "sent").write_bytes(content)
    shell.run(f'put {tmp_path}/sent "$folder/thing"; get "$folder/thing" {tmp_path}/received')
    assert storage.read(promotion.file("thing")) == content
    assert (tmp_path / "received").read_bytes() == content


def test_refused_request_is_tried_again_with_new_credentials(
    bare_shell, surroundings, storage, promotion, tmp_path
):
    storage.write(promotion.file("thing"), b"content")
    expired = RoleCredentials("ASIAEXPIREDEXPIRED00", "expired/expired", "expired")
    fetching = subprocess.Popen(
        bare_shell.command(
            "retried load_credentials; echo loaded; read -r; "
            'get "$folder/thing" received && echo fetched'
        ),
        env=bare_shell.env,
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with fetching:
        with surroundings.metadata(expired):
            assert fetching.stdout.readline() == "loaded\n"
        with surroundings.metadata():
            assert fetching.communicate("go on\n", timeout=30)[0] == "fetched\n"
    assert (tmp_path / "received").read_bytes() == b"content"


def test_what_stays_out_of_reach_is_told_with_the_status(shell):
    gone = shell.run(
        f"""
        sleep() {{ echo pause; }}
        get no/such/object {shell.folder}/x || true
        store=http://127.0.0.1:9 # nobody listens there
        get no/such/object {shell.folder}/x
        """,
        check=False,
    )
    assert gone.returncode == 1
    assert "/no/such/object: no answer but 404" in gone.stderr
    assert "/no/such/object: no answer but 000" in gone.stderr
    assert gone.stdout.count("pause") == 2  # another attempt helps the second alone


def test_secrets_are_on_no_command_line(bare_shell, surroundings):
    role = surroundings.role()
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, never answers
        bare_shell.env["AWS_ENDPOINT_URL_S3"] = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with surroundings.metadata(role):
            asking = subprocess.Popen(
                bare_shell.command("get some/thing /dev/null"), env=bare_shell.env
            )
            with silent.accept()[0]:
                family = [
                    psutil.Process(asking.pid),
                    *psutil.Process(asking.pid).children(recursive=True),
                ]
                said = [" ".join([*each.cmdline(), *each.environ().values()]) for each in family]
                for each in family:
                    each.kill()
            asking.wait()
    assert any("--aws-sigv4" in each for each in said)
    for secret in (role.access_key_id, role.secret_access_key, role.session_token):
        assert not any(secret in each for each in said)


# --- the bundle ----------------------------------------------------------------------------------


@dataclass
class Uploaded:
    """A bundle in the bucket, its files being what a test likes."""

    storage: Storage
    files: dict[str, bytes]

    def upload(self) -> str:
        """Upload all, and return the bundle's identity."""
        described = []
        for path, content in self.files.items():
            file = BundleFile(path, hashlib.sha256(content).hexdigest(), len(content))
            self.storage.write(file.location(self.storage), content)
            described.append(file)
        manifest = Manifest(wheel="a.whl", versions={"python": "3.11"}, files=tuple(described))
        identity = hashlib.sha256(manifest.to_json().encode()).hexdigest()
        self.storage.write(
            self.storage.location(BUNDLES, identity, MANIFEST), manifest.to_json().encode()
        )
        return identity


@pytest.fixture
def uploaded(storage: Storage) -> Uploaded:
    return Uploaded(storage, {"localstack/bootstrap.sh": b"exit\n", "a.whl": os.urandom(50_000)})


def test_bundle_is_unpacked_as_its_manifest_says(shell, uploaded):
    identity = uploaded.upload()
    shell.run(f"bundle={identity}; fetch_bundle")
    there = {
        path.relative_to(shell.home).as_posix(): path.read_bytes()
        for path in shell.home.rglob("*")
        if path.is_file()
    }
    assert there.keys() == {MANIFEST, *uploaded.files}
    assert {path: there[path] for path in uploaded.files} == uploaded.files


def test_damaged_file_ends_the_boot(shell, uploaded, storage):
    identity = uploaded.upload()
    content = uploaded.files["a.whl"]
    damaged = BundleFile("a.whl", hashlib.sha256(content).hexdigest(), len(content))
    storage.write(damaged.location(storage), content[:-1])
    failed = shell.run(f"bundle={identity}; fetch_bundle", check=False)
    storage.delete_all(damaged.location(storage))  # others find it by its hash
    assert failed.returncode == 1
    assert f"{shell.home}/a.whl is damaged" in failed.stdout


def test_foreign_manifest_ends_the_boot(shell, uploaded, storage):
    identity = uploaded.upload()
    location = storage.location(BUNDLES, identity, MANIFEST)
    storage.write(location, storage.read(location).replace(b"3.11", b"3.12"))
    failed = shell.run(f"bundle={identity}; fetch_bundle", check=False)
    assert failed.returncode == 1
    assert f"{MANIFEST} is damaged" in failed.stdout


def test_file_outside_of_the_bundle_is_not_fetched(shell, storage):
    paths = ["../escaped", "/etc/escaped", "a/../../b", "$(touch x)", "a b"]
    bundles = [Uploaded(storage, {path: b"content"}).upload() for path in paths]
    fetching = "; ".join(f"(bundle={each}; fetch_bundle) || echo refused" for each in bundles)
    told = shell.run(fetching)
    assert told.stdout.count("refused") == len(paths)
    for path in paths:
        assert f"the manifest names a file that can't be one: {path}" in told.stdout
    assert [each.name for each in shell.home.iterdir()] == [MANIFEST]


# --- what the outside sees -----------------------------------------------------------------------


def test_status_of_the_boot_is_one_that_python_reads(shell, promotion):
    shell.run("locked report booting")
    status = promotion.status()
    assert (status.phase, status.node) == ("booting", INSTANCE_ID)
    assert status.stages == (Stage(BOOT_STAGE),)
    assert status.began_at <= status.heartbeat
    assert status.error is None


def test_boot_reports_its_failure_unless_python_has_said_the_last_word(shell, promotion):
    shell.run('locked report failed "It ended while starting."')
    assert promotion.status().error == "It ended while starting."
    with (log := NodeLog(shell.log, promotion, INSTANCE_ID)).locked():
        log.close()
    shell.run('locked report failed "again"')
    assert promotion.status().error == "It ended while starting."


def test_boot_is_silent_once_python_has_taken_over(shell, promotion):
    NodeLog(shell.log, promotion, INSTANCE_ID).take_over()
    shell.run("locked report booting")
    assert promotion.status() is None
    shell.run("locked report failed 'Python is gone'")
    assert promotion.status().phase == "failed"


def test_death_of_python_is_reported_beside_what_python_has_said(shell, promotion):
    NodeLog(shell.log, promotion, INSTANCE_ID).take_over()
    said = Status(
        "running",
        INSTANCE_ID,
        stages=(Stage(BOOT_STAGE, seconds=80.0), Stage("Features", total=9, done=3)),
        run_id="a-run",
        notice='It said "I take it back", and \\ more',
    )
    promotion.report(said)
    shell.run('locked report failed "The node ended with exit code 137."')
    status = promotion.status()
    ended = replace(said, phase="failed", error="The node ended with exit code 137.")
    assert replace(status, heartbeat=ended.heartbeat) == ended


def test_other_node_than_the_first_ships_its_log_and_leaves_the_status_alone(
    bare_shell, surroundings, promotion
):
    bare_shell.log.write_bytes(b"hello\n")
    with surroundings.metadata(values={"ami-launch-index": "1"}):
        bare_shell.run(
            "index=$(metadata ami-launch-index); locked report booting; "
            "locked report failed 'Its end is its own business'; ship_log"
        )
    assert promotion.status() is None
    assert chunks(promotion) == [b"hello\n"]


def chunks(promotion: PromotionFolder) -> list[bytes]:
    objects = promotion.storage.objects(promotion.logs / INSTANCE_ID)
    return [promotion.storage.read(each.location) for each in objects]


def test_shell_and_python_ship_one_log_without_gap_or_repetition(shell, promotion):
    log = NodeLog(shell.log, promotion, INSTANCE_ID)
    said = [b"boot\n", b"python\n" * 50_000, b"boot again\n", b""]
    for number, text in enumerate(said):
        with shell.log.open("ab") as file:
            file.write(text)
        if number % 2:
            log.ship()
        else:
            shell.run("ship_log")
    shipped = chunks(promotion)
    assert b"".join(shipped) == b"".join(said)
    assert len(shipped) == 1 + 2 + 1  # the second is longer than a chunk may be
    assert max(map(len, shipped)) == CHUNK_BYTES


def test_chunk_that_was_cut_off_is_shipped_again_as_it_was(shell, promotion):
    """Else a reader that has seen the first form of it would miss what the second adds."""
    shell.log.write_bytes(b"seen by a reader, and more")
    shell.log.with_name(f"{shell.log.name}.shipped").write_text("0 16 0\n")  # died in the midst
    shell.run("ship_log")
    assert chunks(promotion) == [b"seen by a reader", b", and more"]


def test_boot_goes_on_reporting_until_python_takes_over(shell, promotion):
    log = NodeLog(shell.log, promotion, INSTANCE_ID)
    shell.log.write_bytes(b"hello\n")
    quick = "sleep() { command sleep 0.1; }"
    reporting = subprocess.Popen(shell.command(f"{quick}; report_boot"), env=shell.env)
    with reporting:
        first = eventually(promotion.status)
        eventually(lambda: promotion.status().heartbeat > first.heartbeat)
        log.take_over()
        assert reporting.wait(timeout=20) == 0
    assert chunks(promotion) == [b"hello\n"]
