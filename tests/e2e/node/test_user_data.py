"""The boot script: within EC2's limits, without a secret, and each of its parts on real servers."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from localstack.imds import INSTANCE_ID, RoleCredentials
from tests.support.node_surroundings import Surroundings, surroundings
from tests.support.waiting import eventually
from toolkit.cloud.bundle import BUNDLES, MANIFEST, PROMOTIONS, BundleFile, Manifest
from toolkit.cloud.job import NODE_FOLDER
from toolkit.cloud.node.log import CHUNK_BYTES, NodeLog
from toolkit.cloud.node.user_data import LARGEST, REHEARSAL, NodeBoot, user_data
from toolkit.cloud.status import BOOT_STAGE, PromotionFolder, Stage, Status
from toolkit.runs import new_run_id

if TYPE_CHECKING:
    from toolkit.storage import Storage

pytestmark = pytest.mark.slow  # it boots in a shell, with servers

__all__ = ["surroundings"]  # a fixture

TOOLS = Path(sys.executable).parent
BOOT = NodeBoot(
    bucket="a-start-up.fruits",
    region="eu-west-3",
    promotion_id="20261125-120000-000ab",
    bundle="0" * 64,
    dead_man_minutes=150,
)


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


@pytest.fixture
def shell(surroundings: Surroundings, promotion: PromotionFolder) -> Shell:
    settings = surroundings.storage.settings
    boot = replace(
        BOOT,
        bucket=settings.bucket,
        region=settings.region,
        promotion_id=promotion.promotion_id,
    )
    surroundings.folder.joinpath("opt").mkdir()
    return Shell(user_data(boot), surroundings.folder, surroundings.env)


# --- the text ------------------------------------------------------------------------------------


def test_script_fits_into_user_data_with_room_to_spare():
    assert user_data(BOOT).startswith("#!/bin/bash\n")
    assert len(user_data(BOOT).encode()) < LARGEST * 3 / 4


def test_script_passes_shellcheck(tmp_path):
    script = tmp_path / "user-data"
    script.write_text(user_data(BOOT))
    checked = subprocess.run(
        [TOOLS / "shellcheck", script], capture_output=True, text=True, check=False
    )
    assert checked.stdout == ""


def test_script_says_what_it_was_given_and_leaves_no_gap():
    script = user_data(BOOT)
    assigned = dict(re.findall(r"^(\w+)=([\w.-]+)", script, re.MULTILINE))
    assert assigned["bucket"] == BOOT.bucket
    assert assigned["region"] == BOOT.region
    assert assigned["promotion"] == BOOT.promotion_id
    assert assigned["bundle"] == BOOT.bundle
    assert assigned["minutes"] == "150"
    assert not re.search(r"@[a-z_]+@", script)


def test_script_and_python_name_the_same_places():
    script = user_data(BOOT)
    assert f"\nroot=${{{REHEARSAL}-}}\nroot=${{root%/}}\nhome=$root{NODE_FOLDER}\n" in script
    assert f"folder={PROMOTIONS}/$promotion " in script
    assert f'"{BUNDLES}/$bundle/{MANIFEST}"' in script
    assert f"chunk_bytes={CHUNK_BYTES}\n" in script


@pytest.mark.parametrize(
    ("rehearsal", "root"), [(None, ""), ("/", ""), ("/a/rehearsal", "/a/rehearsal")]
)
def test_places_of_the_machine_are_below_the_folder_of_a_rehearsal(tmp_path, rehearsal, root):
    script = tmp_path / "user-data"
    script.write_text(user_data(BOOT))
    told = subprocess.run(
        ["bash", "-c", f'shutdown() {{ :; }}; source {script}; echo "$home" "$log"'],
        env={"PATH": "/usr/bin:/bin"} | ({REHEARSAL: rehearsal} if rehearsal else {}),
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.split() == [f"{root}{NODE_FOLDER}", f"{root}/var/log/fruits-toolkit.log"]


def test_script_holds_no_secret_of_this_environment(monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, f"hush-{name}")
    assert "hush" not in user_data(BOOT)


@pytest.mark.parametrize(
    "wrong",
    [
        {"bucket": "fruits; reboot"},
        {"bucket": ""},
        {"region": "$(reboot)"},
        {"promotion_id": "it's"},
        {"bundle": "0 0"},
        {"dead_man_minutes": 0},
    ],
)
def test_value_that_would_be_more_than_a_word_is_refused(wrong):
    with pytest.raises(ValueError, match=r"is no|can't go off"):
        user_data(replace(BOOT, **wrong))


# --- its parts -----------------------------------------------------------------------------------


def test_credentials_and_name_come_from_imdsv2(shell, surroundings):
    role = surroundings.role()
    with surroundings.metadata(role):
        told = shell.run(
            'load_credentials && printf "%s\\n" "$key_id" "$secret" "$session_token"; '
            "metadata instance-id"
        )
    assert told.stdout.split() == [
        *(role.access_key_id, role.secret_access_key, role.session_token),
        INSTANCE_ID,
    ]


def test_objects_go_there_and_back_signed(shell, surroundings, storage, promotion, tmp_path):
    content = os.urandom(300_000)
    (tmp_path / "sent").write_bytes(content)
    with surroundings.metadata():
        shell.run(f'put {tmp_path}/sent "$folder/thing"; get "$folder/thing" {tmp_path}/received')
    assert storage.read(promotion.file("thing")) == content
    assert (tmp_path / "received").read_bytes() == content


def test_refused_request_is_tried_again_with_new_credentials(
    shell, surroundings, storage, promotion, tmp_path
):
    storage.write(promotion.file("thing"), b"content")
    expired = RoleCredentials("ASIAEXPIREDEXPIRED00", "expired/expired", "expired")
    fetching = subprocess.Popen(
        shell.command(
            "retried load_credentials; echo loaded; read -r; "
            'get "$folder/thing" received && echo fetched'
        ),
        env=shell.env,
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


@pytest.mark.parametrize(
    ("key", "status", "attempts"),
    [("no/such/object", "404", 1), ("no/such/object", "000", 3)],
)
def test_what_stays_out_of_reach_is_told_with_the_status(
    shell, surroundings, key, status, attempts
):
    if status == "000":
        shell.env["AWS_ENDPOINT_URL_S3"] = "http://127.0.0.1:9"  # nobody listens there
    with surroundings.metadata():
        failed = shell.run(f"sleep() {{ echo pause; }}; get {key} {shell.folder}/x", check=False)
    assert failed.returncode == 1
    assert f"/{key}: no answer but {status}" in failed.stderr
    assert failed.stdout.count("pause") == attempts - 1


def test_secrets_are_on_no_command_line(shell, surroundings):
    role = surroundings.role()
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, never answers
        shell.env["AWS_ENDPOINT_URL_S3"] = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with surroundings.metadata(role):
            asking = subprocess.Popen(shell.command("get some/thing /dev/null"), env=shell.env)
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


def test_bundle_is_unpacked_as_its_manifest_says(shell, surroundings, uploaded):
    identity = uploaded.upload()
    with surroundings.metadata():
        shell.run(f"bundle={identity}; fetch_bundle")
    there = {
        path.relative_to(shell.home).as_posix(): path.read_bytes()
        for path in shell.home.rglob("*")
        if path.is_file()
    }
    assert there.keys() == {MANIFEST, *uploaded.files}
    assert {path: there[path] for path in uploaded.files} == uploaded.files


def test_damaged_file_ends_the_boot(shell, surroundings, uploaded, storage):
    identity = uploaded.upload()
    content = uploaded.files["a.whl"]
    damaged = BundleFile("a.whl", hashlib.sha256(content).hexdigest(), len(content))
    storage.write(damaged.location(storage), content[:-1])
    with surroundings.metadata():
        failed = shell.run(f"bundle={identity}; fetch_bundle", check=False)
    storage.delete_all(damaged.location(storage))  # others find it by its hash
    assert failed.returncode == 1
    assert f"{shell.home}/a.whl is damaged" in failed.stdout


def test_foreign_manifest_ends_the_boot(shell, surroundings, uploaded, storage):
    identity = uploaded.upload()
    location = storage.location(BUNDLES, identity, MANIFEST)
    storage.write(location, storage.read(location).replace(b"3.11", b"3.12"))
    with surroundings.metadata():
        failed = shell.run(f"bundle={identity}; fetch_bundle", check=False)
    assert failed.returncode == 1
    assert f"{MANIFEST} is damaged" in failed.stdout


@pytest.mark.parametrize("path", ["../escaped", "/etc/escaped", "a/../../b", "$(touch x)", "a b"])
def test_file_outside_of_the_bundle_is_not_fetched(shell, surroundings, storage, path):
    identity = Uploaded(storage, {path: b"content"}).upload()
    with surroundings.metadata():
        failed = shell.run(f"bundle={identity}; fetch_bundle", check=False)
    assert failed.returncode == 1
    assert "the manifest names a file that can't be one" in failed.stdout
    assert [each.name for each in shell.home.iterdir()] == [MANIFEST]


# --- what the outside sees -----------------------------------------------------------------------


def test_status_of_the_boot_is_one_that_python_reads(shell, surroundings, promotion):
    with surroundings.metadata():
        shell.run("locked report booting")
    status = promotion.status()
    assert (status.phase, status.node) == ("booting", INSTANCE_ID)
    assert status.stages == (Stage(BOOT_STAGE),)
    assert status.began_at <= status.heartbeat
    assert status.error is None


def test_boot_reports_its_failure_unless_python_has_said_the_last_word(
    shell, surroundings, promotion
):
    with surroundings.metadata():
        shell.run('locked report failed "It ended while starting."')
        assert promotion.status().error == "It ended while starting."
        with (log := NodeLog(shell.log, promotion, INSTANCE_ID)).locked():
            log.close()
        shell.run('locked report failed "again"')
    assert promotion.status().error == "It ended while starting."


def test_boot_is_silent_once_python_has_taken_over(shell, surroundings, promotion):
    NodeLog(shell.log, promotion, INSTANCE_ID).take_over()
    with surroundings.metadata():
        shell.run("locked report booting")
        assert promotion.status() is None
        shell.run("locked report failed 'Python is gone'")
    assert promotion.status().phase == "failed"


def test_death_of_python_is_reported_beside_what_python_has_said(shell, surroundings, promotion):
    NodeLog(shell.log, promotion, INSTANCE_ID).take_over()
    said = Status(
        "running",
        INSTANCE_ID,
        stages=(Stage(BOOT_STAGE, seconds=80.0), Stage("Features", total=9, done=3)),
        run_id="a-run",
        notice='It said "I take it back", and \\ more',
    )
    promotion.report(said)
    with surroundings.metadata():
        shell.run('locked report failed "The node ended with exit code 137."')
    status = promotion.status()
    ended = replace(said, phase="failed", error="The node ended with exit code 137.")
    assert replace(status, heartbeat=ended.heartbeat) == ended


def test_other_node_than_the_first_ships_its_log_and_leaves_the_status_alone(
    shell, surroundings, promotion
):
    shell.log.write_bytes(b"hello\n")
    with surroundings.metadata(values={"ami-launch-index": "1"}):
        shell.run(
            "index=$(metadata ami-launch-index); locked report booting; "
            "locked report failed 'Its end is its own business'; ship_log"
        )
    assert promotion.status() is None
    assert chunks(promotion) == [b"hello\n"]


def chunks(promotion: PromotionFolder) -> list[bytes]:
    objects = promotion.storage.objects(promotion.logs / INSTANCE_ID)
    return [promotion.storage.read(each.location) for each in objects]


def test_shell_and_python_ship_one_log_without_gap_or_repetition(shell, surroundings, promotion):
    log = NodeLog(shell.log, promotion, INSTANCE_ID)
    said = [b"boot\n", b"python\n" * 50_000, b"boot again\n", b""]
    with surroundings.metadata():
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


@pytest.mark.parametrize("who", ["shell", "python"])
def test_chunk_that_was_cut_off_is_shipped_again_as_it_was(shell, surroundings, promotion, who):
    """Else a reader that has seen the first form of it would miss what the second adds."""
    shell.log.write_bytes(b"seen by a reader, and more")
    shell.log.with_name(f"{shell.log.name}.shipped").write_text("0 16 0\n")  # died in the midst
    with surroundings.metadata():
        if who == "shell":
            shell.run("ship_log")
        else:
            NodeLog(shell.log, promotion, INSTANCE_ID).ship()
    assert chunks(promotion) == [b"seen by a reader", b", and more"]


def test_boot_goes_on_reporting_until_python_takes_over(shell, surroundings, promotion):
    log = NodeLog(shell.log, promotion, INSTANCE_ID)
    shell.log.write_bytes(b"hello\n")
    with surroundings.metadata():
        quick = "sleep() { command sleep 0.1; }"
        reporting = subprocess.Popen(shell.command(f"{quick}; report_boot"), env=shell.env)
        with reporting:
            first = eventually(promotion.status)
            eventually(lambda: promotion.status().heartbeat > first.heartbeat)
            log.take_over()
            assert reporting.wait(timeout=20) == 0
    assert chunks(promotion) == [b"hello\n"]
