"""AWS as `toolkit promote` meets it: moto's server, MinIO, and boot scripts run on this machine.

Of each instance that EC2 (moto) starts, the very user-data that it received is executed, in a clean
environment, with the metadata service and the rights that an instance has. Or, where the boot is
not what a test is about, a node is played that says what nodes say.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import platformdirs

from localstack.instance import instance
from localstack.minio import Credentials
from tests.support.aws_proxy import leading_through
from toolkit.cloud.aws.account import Identity
from toolkit.cloud.aws.names import RUN_TAG
from toolkit.cloud.aws.policy import node_policy
from toolkit.cloud.status import PromotionFolder
from toolkit.cloud.sweep import find
from toolkit.folders import cache_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from tests.support.aws_proxy import InFront
    from tests.support.moto import Moto
    from toolkit.cloud.aws.account import AwsAccount
    from toolkit.storage import Storage

    Script = Callable[[PromotionFolder, "Scripted"], None]
    Boot = Callable[[dict], AbstractContextManager["Machine"]]

# Before a test gives itself another home.
CACHE = cache_folder()
UV_CACHE = os.environ.get("UV_CACHE_DIR") or str(platformdirs.user_cache_path("uv"))
BUCKET = "orchard"
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
class Scripted:
    """A node that says what a test has it say, and is off when it has said it."""

    name: str
    code: int | None = None

    def exit_code(self) -> int | None:
        return self.code


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
            [sys.executable, "-m", "toolkit", *arguments],
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

    def user_data(self, instance_id: str) -> str:
        """Return what EC2 has received for an instance."""
        answer = (
            self.moto.account()
            .client("ec2")
            .describe_instance_attribute(InstanceId=instance_id, Attribute="userData")
        )
        return base64.b64decode(answer["UserData"]["Value"]).decode()

    @contextmanager
    def machines(self, boot: Boot | None = None) -> Iterator[list[Machine]]:
        """Boot what EC2 starts, until the end of the block; what goes off is terminated.

        Gives the list of the machines that run, or have run. By default the boot script is run.
        """
        machines: list[Machine] = []
        ending = threading.Event()

        def watch() -> None:
            known: dict[str, Machine] = {}
            starting: set[str] = set()
            with ExitStack() as exits:
                while not ending.wait(0.2):
                    for each in self.instances("pending", "running"):
                        name = each["InstanceId"]
                        if name not in starting:  # moto may not be ready with it
                            starting.add(name)
                        elif name not in known:
                            known[name] = exits.enter_context((boot or self.booted)(each))
                            machines.append(known[name])
                        elif known[name].exit_code() is not None:
                            self.end(name)

        thread = threading.Thread(target=watch, name="EC2")
        thread.start()
        try:
            yield machines
        finally:
            ending.set()
            thread.join()

    def booted(self, each: dict) -> AbstractContextManager[Machine]:
        """Run the boot script of an instance."""
        tags = {tag["Key"]: tag["Value"] for tag in each["Tags"]}
        settings = self.storage.settings
        policy = node_policy(
            Identity("123456789012", "arn:aws:iam::123456789012:user/ann"),
            region=self.moto.region,
            bucket=BUCKET,
            promotion=tags[RUN_TAG],
            has_secret=False,
        )
        return instance(
            self.user_data(each["InstanceId"]),
            folder=self.folder / "machines",
            endpoint=settings.endpoint,
            root=Credentials(*settings.credentials()),
            policy=json.loads(policy.to_json()),
            cache=CACHE,
        )

    def saying(self, script: Script) -> Boot:
        """Return what boots nodes that only say what a test has them say."""

        @contextmanager
        def boot(each: dict) -> Iterator[Machine]:
            node = Scripted(each["InstanceId"])
            tags = {tag["Key"]: tag["Value"] for tag in each["Tags"]}
            folder = PromotionFolder(self.storage, tags[RUN_TAG])

            def work() -> None:
                try:
                    script(folder, node)
                finally:
                    node.code = 0

            thread = threading.Thread(target=work, name=node.name)
            thread.start()
            yield node
            thread.join()

        return boot

    def end(self, instance_id: str) -> None:
        """End an instance, as EC2 does when its machine goes off."""
        self.account.client("ec2").terminate_instances(InstanceIds=[instance_id])
