"""The very bytes that EC2 gets as user-data, on bare machines: up to the last status and beyond."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest

from localstack.imds import (
    INSTANCE_ID,
    built_service,
    metadata_service,
    role_credentials,
)
from localstack.minio import Credentials
from tests.support import CHECKOUT
from toolkit.cloud.aws.account import Identity
from toolkit.cloud.aws.policy import node_policy
from toolkit.cloud.bundle import Bundle, make_bundle, upload
from toolkit.cloud.follow import follow
from toolkit.cloud.job import JOB, JobDescription
from toolkit.cloud.node.user_data import NodeBoot, user_data
from toolkit.cloud.status import BOOT_STAGE, PromotionFolder
from toolkit.folders import cache_folder
from toolkit.models import DEFAULT_MODEL, model_spec, prepare, resolve_weights
from toolkit.profiles import load_profile
from toolkit.progress import Silent
from toolkit.runs import RunRecord, new_run_id

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from toolkit.storage import Location, Storage

CLEAN_ROOT = CHECKOUT / "localstack" / "clean-root.sh"
# As cloud-init does it: from a file, as root.
EXECUTED = "cat >/root/user-data; chmod 700 /root/user-data; cd /; exec /root/user-data"
# Nothing but the user's script: the other modules grow disks and set up users and SSH.
CONFIG = """\
datasource_list: [NoCloud]
network: {config: disabled}
cloud_init_modules: []
cloud_config_modules: []
cloud_final_modules: [scripts-user]
"""
# Debian's cloud-init, in its four stages, as systemd starts them; and what it makes of the script.
CLOUD_INIT = f"""
apt-get update >&2
apt-get install --yes --no-install-recommends cloud-init >&2
mkdir -p /var/lib/cloud/seed/nocloud
cat >/var/lib/cloud/seed/nocloud/user-data
echo 'instance-id: {INSTANCE_ID}' >/var/lib/cloud/seed/nocloud/meta-data
printf '%s' '{CONFIG}' >/etc/cloud/cloud.cfg.d/99-tests.cfg
cloud-init init --local >&2
cloud-init init >&2
cloud-init modules --mode=config >&2
cloud-init modules --mode=final >&2 || true
cat /var/log/cloud-init-output.log
"""


@dataclass
class Machine:
    """A bare machine, beside which a store and a metadata service run."""

    storage: Storage
    folder: Path
    promotion: PromotionFolder

    def metadata(self) -> AbstractContextManager[str]:
        """Run the metadata service, which hands out what a node's role may, and no more."""
        program = built_service(cache_folder(), log=self.folder / "build.log")
        settings = self.storage.settings
        policy = node_policy(
            Identity("123456789012", "arn:aws:iam::123456789012:user/ann"),
            region=settings.region,
            bucket=settings.bucket,
            promotion=self.promotion.promotion_id,
            has_secret=False,
        )
        role = role_credentials(
            settings.endpoint,
            Credentials(*settings.credentials()),
            policy=json.loads(policy.to_json()),
        )
        return metadata_service(program, role, folder=self.folder)

    def command(self, *call: str, metadata: str) -> list[str | Path]:
        """Return the command that makes a bare machine and calls something in it."""
        bare = self.folder / "bare"  # no checkout on it
        bare.mkdir(exist_ok=True)
        env = [
            "TOOLKIT_REHEARSAL=/",
            "NO_PROXY=127.0.0.1",
            f"AWS_ENDPOINT_URL_S3={self.storage.settings.endpoint}",
            f"AWS_EC2_METADATA_SERVICE_ENDPOINT={metadata}",
        ]
        return ["bash", CLEAN_ROOT, "--files", bare, "--", "env", "--unset=HOME", *env, *call]

    def run_user_data(self, script: str, *, metadata: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command("bash", "-euc", EXECUTED, metadata=metadata),
            input=script,
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture(scope="module", autouse=True)
def _needs_bare_machines() -> None:
    checked = subprocess.run(
        ["bash", CLEAN_ROOT, "--check"], stderr=subprocess.PIPE, text=True, check=False
    )
    if checked.returncode:
        pytest.fail(checked.stderr.strip())  # a skipped part would count as passed


@pytest.fixture
def machine(storage: Storage, tmp_path: Path) -> Iterator[Machine]:
    promotion = PromotionFolder(storage, new_run_id())
    yield Machine(storage, tmp_path, promotion)
    storage.delete_all(promotion.location)


@pytest.fixture(scope="module")
def images(storage: Storage, sample_files: list[Path]) -> Location:
    where = storage.location("images", "of-the-boot")
    for file in sample_files:
        storage.upload(file, where / file.parent.name / file.name)
    return where


@pytest.fixture(scope="module")
def bundle(storage: Storage, images: Location, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Return a real bundle, which is in the bucket."""
    options = {"s3": {"bucket": storage.settings.bucket, "region": storage.settings.region}}
    spec, profile = model_spec(DEFAULT_MODEL), load_profile("aws", options=options)
    weights = resolve_weights(spec, "imagenet", cache=cache_folder())
    job = JobDescription.of(
        prepare(spec, weights, cache=cache_folder()),
        profile,
        images=images.uri,
        weights="imagenet",
        components=5,
    )
    made = make_bundle(tmp_path_factory.mktemp("promotion") / "bundle", job, profile=profile)
    upload(made, storage)
    return made


@pytest.fixture
def boot(machine: Machine) -> NodeBoot:
    """Return what the boot script is told; its bundle is none."""
    settings = machine.storage.settings
    return NodeBoot(
        bucket=settings.bucket,
        region=settings.region,
        promotion_id=machine.promotion.promotion_id,
        bundle="0" * 64,
        dead_man_minutes=60,
    )


@pytest.mark.timeout(3000)  # packages for 2 GB are fetched and installed
def test_user_data_runs_the_job_on_a_bare_machine(machine, boot, bundle, images):
    machine.promotion.write_job((bundle.folder / JOB).read_bytes())
    script = user_data(replace(boot, bundle=bundle.identity))
    lines: list[str] = []
    with machine.metadata() as metadata:
        with subprocess.Popen(
            machine.command("bash", "-euc", EXECUTED, metadata=metadata),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as node:
            node.stdin.write(script)
            node.stdin.close()
            last = follow(machine.promotion, progress=Silent(), on_line=lines.append)
            console = node.stdout.read()
            assert node.wait(timeout=60) == 0, console
    assert (last.phase, last.error, last.node) == ("done", None, INSTANCE_ID)
    assert last.stages[0].title == BOOT_STAGE
    assert last.stages[0].seconds > 1
    result = machine.storage.read(machine.promotion.file("result.json"))
    record = RunRecord.from_json(result)
    assert (record.run_id, record.status) == (last.run_id, "done")
    assert record.counts.featurized == record.counts.listed == 24
    told = "\n".join(lines)
    assert "boot: the bundle is there and as it should be" in told
    assert "[4/5] Python packages" in told
    assert "boot: the end, with exit code 0 while running the job" in console


def test_what_the_boot_script_cannot_do_is_in_the_bucket_and_on_the_console(machine, boot):
    with machine.metadata() as metadata:
        ended = machine.run_user_data(user_data(boot), metadata=metadata)
    assert ended.returncode == 1
    status = machine.promotion.status()
    assert (status.phase, status.node) == ("failed", INSTANCE_ID)
    assert status.error == "The node ended with exit code 1 while fetching the bundle."
    log = b"".join(
        machine.storage.read(each.location)
        for each in machine.storage.objects(machine.promotion.logs)
    ).decode()
    problem = f"toolkit/bundles/{boot.bundle}/manifest.json: no answer but 404"
    assert problem in log
    assert problem in ended.stdout


def test_cloud_init_takes_the_script_and_executes_it(machine, boot):
    with machine.metadata() as metadata:
        done = subprocess.run(
            machine.command("bash", "-euc", CLOUD_INIT, metadata=metadata),
            input=user_data(boot),
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "boot: the end, with exit code 1 while fetching the bundle" in done.stdout
    assert "Unhandled" not in done.stdout + done.stderr  # what it says of unknown user-data
    assert machine.promotion.status().error == (
        "The node ended with exit code 1 while fetching the bundle."
    )


def test_machine_is_turned_off_at_last_and_after_its_time_outside_of_rehearsals(machine, boot):
    call = (
        "cat >/root/user-data; unset TOOLKIT_REHEARSAL; "
        "printf '#!/bin/sh\\necho \"$@\" >>/root/off\\n' >/usr/local/sbin/shutdown; "
        "chmod 700 /root/user-data /usr/local/sbin/shutdown; cd /; /root/user-data >&2; "
        "cat /root/off"
    )
    with machine.metadata() as metadata:
        done = subprocess.run(
            machine.command("bash", "-uc", call, metadata=metadata),
            input=user_data(boot),
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.stdout.splitlines() == ["-h +60", "-h now"]
