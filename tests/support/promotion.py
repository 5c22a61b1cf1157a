"""AWS as `toolkit promote` meets it: moto, MinIO, and nodes that say what a test has them say.

Two ways to promote. In this process, by a clock whose waits are over at once: during each of them
the nodes that EC2 has started go a step on, and nothing happens at any other time. Or by calling
`toolkit promote` as a process, where the process is the point: then a thread boots the nodes, which
may also be boot scripts that run on this machine.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

import platformdirs
import pytest

from localstack.instance import instance
from localstack.minio import Credentials
from tests.support.aws_proxy import leading_through, opened
from tests.support.clock import FastClock
from toolkit.cloud.aws.account import Identity
from toolkit.cloud.aws.names import RUN_TAG
from toolkit.cloud.aws.policy import node_policy
from toolkit.cloud.bundle import MANIFEST, Bundle, BundleFile, Manifest
from toolkit.cloud.promotion import Here, come_back, promote, resume
from toolkit.cloud.status import BOOT_STAGE, PromotionFolder, Stage, Status
from toolkit.cloud.sweep import find
from toolkit.folders import cache_folder
from toolkit.pipeline import RunRequest
from toolkit.profiles import load_profile
from toolkit.runs import Counts, Owner, RunFolder, RunRecord, new_run_id, now
from toolkit.storage import Storage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from localstack import StackSettings
    from tests.support.aws_proxy import InFront
    from tests.support.moto import Moto
    from toolkit.cloud.aws.account import AwsAccount
    from toolkit.cloud.job import JobDescription
    from toolkit.cloud.plan import Plan
    from toolkit.cloud.preflight import Preflight
    from toolkit.cloud.promotion import Ending
    from toolkit.profiles import Profile

    Script = Callable[[PromotionFolder, "Node"], Iterator[None] | None]
    Boot = Callable[["Node"], AbstractContextManager["Machine"]]

# Before a test gives itself another home.
CACHE = cache_folder()
UV_CACHE = os.environ.get("UV_CACHE_DIR") or str(platformdirs.user_cache_path("uv"))
BUCKET = f"orchard-{os.environ.get('PYTEST_XDIST_WORKER', 'gw')}"  # workers share one MinIO
LAUNCH = (
    "ec2:CreateSecurityGroup",
    "iam:CreateRole",
    "iam:PutRolePolicy",
    "iam:CreateInstanceProfile",
    "iam:AddRoleToInstanceProfile",
    "ec2:RunInstances",
)
"""What makes something in a launch of one node, in order."""

CONFIG = """\
[profiles.aws.s3]
endpoint = "aws"
bucket = "{bucket}"
region = "{region}"
"""


class Machine(Protocol):
    def exit_code(self) -> int | None: ...


@dataclass
class Node:
    """An instance that EC2 has started for a promotion; off once it has an exit code."""

    name: str
    promotion: str
    index: int = 0
    code: int | None = None

    def exit_code(self) -> int | None:
        return self.code


class Desk:
    """Agrees to everything, and keeps what it is told; interrupts when it hears certain words."""

    def __init__(self, *, interrupt_at: str = "") -> None:
        self.told: list[str] = []
        self.plans: list[Plan] = []
        self._interrupt_at = interrupt_at

    @property
    def progress(self) -> Desk:
        return self

    @property
    def said(self) -> str:
        return "\n".join(self.told)

    def begin(self, title: str, *, total: int | None = None) -> None:
        self.say(f"{title} …")

    def advance_to(self, done: int) -> None:
        pass

    def end(self, seconds: float) -> None:
        pass

    def say(self, text: str) -> None:
        self.told.append(text)
        if self._interrupt_at and self._interrupt_at in text:
            self._interrupt_at = ""
            raise KeyboardInterrupt

    def log_line(self, line: str) -> None:
        self.say(line)

    def rehearsed(self, rehearsal: object) -> None:
        pass

    def checked(self, report: Preflight) -> None:
        pass

    def planned(self, plan: Plan, *, asks: bool) -> bool:
        self.plans.append(plan)
        return asks


@dataclass
class Cloud:
    """AWS, and a person with a checkout in front of it.

    Attributes
    ----------
    moto
        EC2, IAM, STS and SSM.
    account
        Leads to moto directly, whatever the environment says.
    storage
        S3: a bucket of the tests' MinIO.
    env
        What the person's shell has.
    folder
        Where the person calls commands: it has a ``toolkit.toml``.
    """

    moto: Moto
    account: AwsAccount
    storage: Storage
    env: dict[str, str]
    folder: Path
    calls: list[subprocess.Popen[str]] = field(default_factory=list)
    _script: Script | None = None
    _at_work: dict[str, Iterator[None]] = field(default_factory=dict)

    @contextmanager
    def front(self) -> Iterator[InFront]:
        """Put a server in front of moto, and lead boto3 through it until the end of the block."""
        with leading_through(self.moto) as front:
            try:
                yield front
            finally:
                self.moto.environment.setenv("AWS_ENDPOINT_URL", self.moto.url)

    def begin(self, *arguments: str, **env: str) -> subprocess.Popen[str]:
        """Call the toolkit, and do not wait."""
        call = subprocess.Popen(
            # Of a pytest that `nohup` started, it would inherit that SIGHUP is ignored.
            ["env", "--default-signal=HUP", sys.executable, "-m", "toolkit", *arguments],
            cwd=self.folder,
            env=self.env | env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.calls.append(call)
        return call

    def toolkit(
        self, *arguments: str, timeout: float = 280, **env: str
    ) -> subprocess.CompletedProcess[str]:
        """Call the toolkit, and wait for its end."""
        call = self.begin(*arguments, **env)
        out, err = call.communicate(timeout=timeout)
        return subprocess.CompletedProcess(arguments, call.returncode, out, err)

    @property
    def ids(self) -> list[str]:
        """Ids of all promotions in the bucket."""
        return self.storage.folders(self.storage.location("toolkit/promotions"))

    def promotion(self, promotion_id: str | None = None) -> PromotionFolder:
        """Return a promotion, or the only one."""
        (only,) = [promotion_id] if promotion_id else self.ids
        return PromotionFolder(self.storage, only)

    def left(self) -> list[str]:
        """Return what is in AWS and carries the tag of a promotion."""
        return [str(each) for each in find(self.account)]

    def instances(self, *states: str) -> list[dict]:
        """Return the promotions' instances."""
        ec2 = self.account.client("ec2")
        filters = [{"Name": "tag-key", "Values": [RUN_TAG]}]
        if states:
            filters.append({"Name": "instance-state-name", "Values": list(states)})
        found = ec2.describe_instances(Filters=filters)["Reservations"]
        return [each for reservation in found for each in reservation["Instances"]]

    def is_untouched(self) -> bool:
        """Whether AWS is as it was: nothing in the bucket, and nothing of a promotion elsewhere."""
        return [*self.storage.objects(self.storage.location()), *self.left()] == []

    # --- the nodes ---

    @property
    def _ec2(self):
        from moto.backends import get_backend
        from moto.core import DEFAULT_ACCOUNT_ID

        return get_backend("ec2")[DEFAULT_ACCOUNT_ID][self.moto.region]

    def running(self) -> list[Node]:
        """Return the nodes that have been started and not ended, asked of moto past its server."""
        nodes = []
        for reservation in list(self._ec2.reservations.values()):
            instances = list(reservation.instances)
            # The last that moto does of a launch is to give its first instance the profile. One
            # that ended earlier would leave its disk behind, for ever in use.
            if not instances or instances[0].id not in self._ec2.iam_instance_profile_associations:
                continue
            for each in instances:
                promotion = self._ec2.tags.get(each.id, {}).get(RUN_TAG)
                if promotion and each.state in {"pending", "running"}:
                    nodes.append(Node(each.id, promotion, int(each.ami_launch_index)))
        return nodes

    def end(self, instance_id: str) -> None:
        """End an instance, as EC2 does when its machine goes off."""
        self._ec2.terminate_instances([instance_id])

    @contextmanager
    def nodes(self, script: Script) -> Iterator[None]:
        """Let nodes follow a script, which goes on with each wait of a promotion in this process.

        A script that is a generator goes on to its next ``yield``. At its end the node is off.
        """
        self._script = script
        try:
            yield
        finally:
            self._script = None
            self._at_work.clear()

    def pass_time(self) -> None:
        """Let each node take the next step of its script."""
        if self._script is None:
            return
        for node in self.running():
            if node.name not in self._at_work:
                folder = PromotionFolder(self.storage, node.promotion)
                self._at_work[node.name] = iter(self._script(folder, node) or ())
            if next(self._at_work[node.name], self) is self:
                self.end(node.name)

    @contextmanager
    def machines(self, boot: Boot | None = None) -> Iterator[list[Machine]]:
        """Boot what EC2 starts, until the end of the block; what goes off is terminated.

        Gives the list of the machines that run, or have run. By default the boot script is run.
        """
        machines: list[Machine] = []
        ending = threading.Event()

        def watch() -> None:
            known: dict[str, Machine] = {}
            with ExitStack() as exits:
                while not ending.wait(0.05):
                    for each in self.running():
                        if each.name not in known:
                            known[each.name] = exits.enter_context((boot or self.booted)(each))
                            machines.append(known[each.name])
                        elif known[each.name].exit_code() is not None:
                            self.end(each.name)

        thread = threading.Thread(target=watch, name="EC2")
        thread.start()
        try:
            yield machines
        finally:
            ending.set()
            thread.join()

    def booted(self, node: Node) -> AbstractContextManager[Machine]:
        """Run the boot script of an instance: the very bytes that EC2 has received."""
        answer = (
            self.moto.account()
            .client("ec2")
            .describe_instance_attribute(InstanceId=node.name, Attribute="userData")
        )
        settings = self.storage.settings
        policy = node_policy(
            Identity("123456789012", "arn:aws:iam::123456789012:user/ann"),
            region=self.moto.region,
            bucket=BUCKET,
            promotion=node.promotion,
            has_secret=False,
        )
        return instance(
            base64.b64decode(answer["UserData"]["Value"]).decode(),
            folder=self.folder / "machines",
            endpoint=settings.endpoint,
            root=Credentials(*settings.credentials()),
            policy=json.loads(policy.to_json()),
            cache=CACHE,
        )

    def saying(self, script: Script) -> Boot:
        """Return what boots nodes that follow a script, each in a thread."""

        @contextmanager
        def boot(node: Node) -> Iterator[Machine]:
            def work() -> None:
                try:
                    for _ in script(PromotionFolder(self.storage, node.promotion), node) or ():
                        time.sleep(0.1)
                finally:
                    node.code = 0

            thread = threading.Thread(target=work, name=node.name)
            thread.start()
            yield node
            thread.join()

        return boot


@dataclass(frozen=True)
class Person:
    """Whoever promotes in this process, with one folder of images and one bucket."""

    request: RunRequest
    profile: Profile
    here: Here

    def promote(self, desk: Desk | None = None, **changes: object) -> Ending | None:
        request = replace(self.request, **changes)
        return promote(request, self.profile, here=self.here, desk=desk or Desk(), rehearsing=False)

    def resume(self, promotion_id: str, desk: Desk | None = None) -> Ending | None:
        return resume(promotion_id, self.profile, here=self.here, desk=desk or Desk())

    def come_back(self, promotion_id: str, desk: Desk | None = None) -> Ending:
        return come_back(promotion_id, self.profile, desk=desk or Desk(), clock=self.here.clock)


# --- fixtures: a folder's conftest.py imports them -----------------------------------------------


@pytest.fixture
def cloud(
    moto: Moto,
    refusing: Callable[..., object],
    storage: Storage,
    stack_settings: StackSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Cloud]:
    """Give an AWS with an empty bucket and nothing else, and a person who may do everything."""
    settings = storage.settings
    moto.region = settings.region
    monkeypatch.setenv("AWS_REGION", settings.region)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", settings.endpoint)
    key, secret = settings.credentials()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    moto.equip(settings.region)
    env = dict(os.environ)
    # moto has no prices, and botocore asks twice for what fails as moto does.
    refusing("pricing", "AccessDeniedException", "You may not see prices")
    # An open store has the credentials of the test before for some minutes.
    monkeypatch.setattr("toolkit.storage._OPEN_STORES", {})
    own = Storage(settings.model_copy(update={"bucket": BUCKET}))
    s3 = moto.account().client("s3")
    with suppress(s3.exceptions.BucketAlreadyOwnedByYou):
        s3.create_bucket(Bucket=BUCKET)
    (tmp_path / "toolkit.toml").write_text(CONFIG.format(bucket=BUCKET, region=settings.region))
    env |= {
        "TOOLKIT_HOME": str(stack_settings.root),
        "TOOLKIT_CACHE": str(CACHE),
        "UV_CACHE_DIR": UV_CACHE,
    }
    cloud = Cloud(moto, opened(moto.account()), own, env, tmp_path)
    try:
        yield cloud
    finally:
        for call in cloud.calls:
            if call.poll() is None:
                with suppress(ProcessLookupError):
                    os.killpg(call.pid, signal.SIGKILL)
                call.wait()
        own.delete_all(own.location())


@pytest.fixture(scope="session")
def small_bundle(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Bundle]:
    """Return what makes a bundle of a few bytes: nobody unpacks it."""
    folder = tmp_path_factory.mktemp("small bundle")

    def make(_: Path, job: JobDescription, *, profile: Profile) -> Bundle:
        files = []
        for path in ("a.whl", f"{job.model_folder}/model.bin"):
            file = folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(path.encode())
            sha256 = hashlib.sha256(path.encode()).hexdigest()
            files.append(BundleFile(path, sha256, len(path)))
        manifest = Manifest(wheel="a.whl", versions={"python": "3.11"}, files=tuple(files))
        (folder / MANIFEST).write_text(manifest.to_json())
        identity = hashlib.sha256(manifest.to_json().encode()).hexdigest()
        return Bundle(folder, manifest, identity)

    return make


@pytest.fixture
def person(
    cloud: Cloud,
    small_bundle: Callable[..., Bundle],
    mixed_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Person:
    """Return whoever promotes in this process: each wait is over at once, and nodes go on in it."""
    monkeypatch.setenv("TOOLKIT_HOME", str(cloud.folder / "state"))
    monkeypatch.setenv("TOOLKIT_CACHE", str(CACHE))
    clock = FastClock(at_least=6, meanwhile=cloud.pass_time)
    return Person(
        RunRequest(images=str(mixed_folder), weights="imagenet"),
        load_profile("aws", config_file=cloud.folder / "toolkit.toml"),
        Here(None, 2, make_bundle=small_bundle, clock=clock.clock),
    )


@pytest.fixture(scope="session")
def run_record() -> RunRecord:
    """Return the record of a run as a node leaves it."""
    return RunRecord(
        run_id=new_run_id(),
        status="done",
        profile="aws",
        images=f"s3a://{BUCKET}/images/mixed fruits",
        model="EfficientNetLite0",
        weights="imagenet",
        weights_sha256="0" * 64,
        random_weights=False,
        engine="openvino",
        precision="f32",
        fingerprint="0" * 64,
        owner=Owner("a-node", 1, 1.0),
        started_at=now(),
        finished_at=now(),
        counts=Counts(listed=27, featurized=24, quarantined=3),
        labels=6,
        dimensions=1280,
        components=5,
    )


@pytest.fixture
def works(run_record: RunRecord) -> Script:
    """Return what a node does that has no trouble: it has made a run when it ends."""

    def work(folder: PromotionFolder, node: Node) -> None:
        folder.report(Status("booting", node.name))
        run = RunFolder(folder.storage, new_run_id())
        stages = (Stage(BOOT_STAGE, seconds=1.0), Stage("Features", total=24, done=12))
        folder.report(Status("running", node.name, stages=stages, run_id=run.run_id))
        run.save(replace(run_record, run_id=run.run_id))
        folder.storage.write(run.file("report.html"), b"<html>")
        folder.report(Status("done", node.name, stages=stages, run_id=run.run_id))

    return work


@pytest.fixture
def dies(cloud: Cloud, run_record: RunRecord) -> Script:
    """Return what a node does that begins a run, and whose machine is gone then."""

    def work(folder: PromotionFolder, node: Node) -> None:
        run = RunFolder(folder.storage, new_run_id())
        run.save(replace(run_record, run_id=run.run_id, status="running"))
        folder.storage.write(folder.chunk(node.name, 0), b"the last line\n")
        folder.report(Status("running", node.name, run_id=run.run_id))
        cloud.end(node.name)

    return work
