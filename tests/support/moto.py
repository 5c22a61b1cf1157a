"""AWS for tests: moto's server, and servers that answer as AWS does where moto does not."""

from __future__ import annotations

import gc
import json
import os
import re
import threading
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from boto3.session import Session
from botocore.loaders import create_loader

from tests.support.aws_proxy import ProxyServer
from tests.support.in_process import (
    HttpReply,
    HttpRequest,
    connect_boto3,
    of_application,
    serving,
)
from tests.support.ubuntu_images import add_image, backend, set_parameter
from toolkit.cloud.aws.account import AwsAccount

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from botocore.config import Config
    from botocore.loaders import Loader

    from tests.support.in_process import Server

REGION = "eu-west-1"
AMI = "ami-00000001"
FAMILIES = re.compile(r"(c[5-7]|m[5-7]|g4dn|t3)\w*\.")
"""Families of instance types that moto knows in tests: with all, each look at one takes long."""

OFFERED_IN = re.compile(r"availability-zone/(eu-|us-east-1\b)")
"""Where it offers them: in regions of tests, and in that of MinIO."""

# What would lead boto3 elsewhere than to the tests' servers.
FOREIGN = (
    "AWS_CA_BUNDLE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_DEFAULT_PROFILE",
    "AWS_DEFAULT_REGION",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
    "AWS_PROFILE",
    "AWS_ROLE_ARN",
    "AWS_SESSION_TOKEN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
)

# Where boto3 looks for its configuration: in each test elsewhere, and seldom there.
CONFIGURATION = ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE")


@dataclass
class Reply:
    """What a server answers: a status, a type, a body."""

    body: str
    status: int = 200
    type: str = "text/xml"


@dataclass
class Answering:
    """A server that answers every request by a function of its body; keeps the bodies."""

    url: str
    requests: list[str] = field(default_factory=list)


@dataclass
class Moto:
    """moto's server, and credentials that lead to it.

    Attributes
    ----------
    url
        Its address; ``AWS_ENDPOINT_URL`` is it.
    region
        ``AWS_REGION``.
    server
        Answers requests of this process.
    proxy
        A server in front of it.
    """

    url: str
    region: str
    environment: pytest.MonkeyPatch
    server: Server
    proxy: ProxyServer

    def account(self) -> AwsAccount:
        """Return the account with the credentials that stand in the environment now."""
        return AwsAccount(self.region)

    def make_bucket(self, name: str, region: str = REGION) -> None:
        """Make a bucket in a region."""
        self.account().client("s3", region=region).create_bucket(
            Bucket=name, CreateBucketConfiguration={"LocationConstraint": region}
        )

    def equip(self, region: str = REGION, *, image: str = AMI) -> None:
        """Let a region have Ubuntu, and its default VPC an internet gateway, as AWS's have."""
        set_parameter(region, add_image(region, image))
        ec2 = backend("ec2", region)
        (vpc,) = ec2.describe_vpcs()
        gateway = ec2.create_internet_gateway()
        ec2.attach_internet_gateway(gateway.id, vpc.id)
        (table,) = ec2.describe_route_tables()
        ec2.create_route(table.id, "0.0.0.0/0", gateway_id=gateway.id)

    def sign_in(self, user: str, policy: dict | None = None) -> None:
        """Make a user, give it the policy (none: it may do nothing), and act as it from now on."""
        iam = backend("iam", self.region)
        iam.create_user(self.region, user)
        if policy is not None:
            iam.put_user_policy(user, "tests", json.dumps(policy))
        key = iam.create_access_key(user)
        # The same in each test: so boto3's clients are.
        key.access_key_id = f"AKIA{user.upper():Q<16}"
        key.secret_access_key = f"{user:/<40}"
        self.environment.setenv("AWS_ACCESS_KEY_ID", key.access_key_id)
        self.environment.setenv("AWS_SECRET_ACCESS_KEY", key.secret_access_key)

    def enforce(self, *, on: bool = True) -> None:
        """Heed policies from now on, to the end of the test."""
        from moto import settings
        from moto.core.responses import ActionAuthenticatorMixin

        settings.INITIAL_NO_AUTH_ACTION_COUNT = 0 if on else float("inf")
        ActionAuthenticatorMixin.request_count = 0

    def reset(self) -> None:
        """Forget everything."""
        from moto.moto_api._internal import moto_api_backend

        self.enforce(on=False)
        moto_api_backend.reset()


@dataclass(frozen=True)
class MotoServer:
    """moto in this process: as a function, for other processes by its URL, and behind a proxy."""

    url: str
    answer: Server
    proxy: ProxyServer


@pytest.fixture(scope="session")
def moto_server() -> Iterator[MotoServer]:
    """Start moto in this process, where ``moto.backends.get_backend`` sets its states."""
    from moto.backends import get_backend
    from moto.server import ThreadedMotoServer
    from moto.utilities.utils import load_resource

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    answer = of_application(_application())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("moto.utilities.utils.load_resource", partial(_resource, load_resource))
        get_backend("ec2")
    for service in ("iam", "s3", "ssm", "sts"):
        get_backend(service)
    gc.collect()
    gc.freeze()  # or each full collection looks through all that moto and botocore consist of
    proxy = ProxyServer(url)
    try:
        with serving(url, answer), proxy.running(), pytest.MonkeyPatch.context() as patch:
            for name in COMPUTED_ONCE:
                module, _, function = name.rpartition(".")
                patch.setattr(name, cache(getattr(import_module(module), function)))
            yield MotoServer(url, answer, proxy)
    finally:
        server.stop()


@pytest.fixture(scope="session")
def moto_url(moto_server: MotoServer) -> str:
    return moto_server.url


def _resource(load: Callable[[str], Any], name: str) -> Any:
    """Return a resource of moto's, of EC2's instance types only those that the tests speak of."""
    if "instance_type_offerings" in name and not OFFERED_IN.search(name):
        return []
    content = load(name)
    if "instance_type_offerings" in name:
        return [each for each in content if FAMILIES.match(each["InstanceType"])]
    if "instance_types" in name:
        return {kind: facts for kind, facts in content.items() if FAMILIES.match(kind)}
    return content


def _application() -> Callable[..., object]:
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

    application = DomainDispatcherApplication(create_backend_app)
    application.get_backend_for_host = cache(application.get_backend_for_host)
    return application


COMPUTED_ONCE = (
    "botocore.useragent.sanitize_user_agent_string_component",
    "moto.core.responses.method_names_from_class",
    "moto.kms.models.generate_private_key",  # for SSM's secrets, which nobody decrypts elsewhere
    "xmltodict._validate_name",
)
"""What moto and botocore compute in each request, the same again: a third of their time."""


@cache
def _loader(paths: str | None) -> Loader:
    return create_loader(paths)


def _session(region_name: str) -> Session:
    """Return a session of boto3, which takes long to make: the same for the same environment."""
    if any(Path(os.environ[name]).exists() for name in CONFIGURATION):
        return _SharedSession(region_name=region_name)
    leading = (
        each
        for each in os.environ.items()
        if each[0] not in CONFIGURATION
        and (each[0].startswith("AWS_") or each[0].lower().endswith("_proxy"))
    )
    return _session_like(region_name, *sorted(leading))


@cache
def _session_like(region_name: str, *_: tuple[str, str]) -> Session:
    return _SharedSession(region_name=region_name)


class _SharedSession(Session):
    """A session that makes each client once."""

    def __init__(self, region_name: str) -> None:
        super().__init__(region_name=region_name)
        self._lock = threading.Lock()
        self._made: dict[str, object] = {}

    def client(self, service_name: str, *, region_name: str, config: Config) -> object:
        about = json.dumps([service_name, region_name, config.retries])
        with self._lock:
            if about not in self._made:
                self._made[about] = super().client(
                    service_name, region_name=region_name, config=config
                )
            return self._made[about]


@pytest.fixture
def no_aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """Take away all that boto3 might find on this machine, and the way out to AWS."""
    for name in FOREIGN:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))  # ~/.aws/sso/cache
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setenv("AWS_REGION", REGION)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    # Each session reads the descriptions of its services, EC2's in a second: once is enough.
    monkeypatch.setattr("botocore.session.create_loader", _loader)
    monkeypatch.setattr("boto3.session.Session", _session)
    # So shared, clients would remember how often others have tried again. And nobody waits.
    monkeypatch.setattr("botocore.retries.quota.RetryQuota.acquire", lambda *_: True)
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0)
    connect_boto3(monkeypatch)
    return monkeypatch


@pytest.fixture
def aws_keys(no_aws: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Set a key pair that no AWS knows."""
    no_aws.setenv("AWS_ACCESS_KEY_ID", "AKIATESTTESTTESTTEST")
    no_aws.setenv("AWS_SECRET_ACCESS_KEY", "tests/tests/tests/tests/tests/tests/test")
    return no_aws


@pytest.fixture
def moto(moto_server: MotoServer, aws_keys: pytest.MonkeyPatch) -> Iterator[Moto]:
    """Give an empty moto in which everything is allowed, and lead boto3 to it."""
    url, answer, proxy = moto_server.url, moto_server.answer, moto_server.proxy
    aws_keys.setenv("AWS_ENDPOINT_URL", url)
    aws_keys.setenv("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")  # which each reset would read anew
    server = Moto(url, REGION, aws_keys, answer, proxy)
    server.reset()
    yield server
    server.reset()


@pytest.fixture
def answering(
    aws_keys: pytest.MonkeyPatch,
) -> Iterator[Callable[[str, Callable[[str], Reply]], Answering]]:
    """Return a function that puts a function of ours in the place of a service, in this process.

    It takes boto3's name of the service and a function that makes the reply to a request's body.
    """
    with ExitStack() as exits:

        def serve(service: str, reply: Callable[[str], Reply]) -> Answering:
            seen: list[str] = []

            def answer(request: HttpRequest) -> HttpReply:
                seen.append(request.body.decode())
                made = reply(seen[-1])
                return HttpReply(made.status, [("Content-Type", made.type)], made.body.encode())

            url = f"http://{service}.tests.invalid"
            exits.enter_context(serving(url, answer))
            aws_keys.setenv(f"AWS_ENDPOINT_URL_{service.upper()}", url)
            return Answering(url, seen)

        yield serve


@pytest.fixture
def refusing(
    answering: Callable[[str, Callable[[str], Reply]], Answering],
) -> Callable[..., Answering]:
    """Return a function that lets a service refuse every request, in EC2's or STS's form."""

    def serve(service: str, code: str, message: str, *, status: int = 400) -> Answering:
        error = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
        body = (
            f"<Response><Errors>{error}</Errors><RequestID>request-1</RequestID></Response>"
            if service == "ec2"
            else f"<ErrorResponse>{error}<RequestId>request-1</RequestId></ErrorResponse>"
        )
        return answering(service, lambda _: Reply(body, status))

    return serve
