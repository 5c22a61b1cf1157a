"""AWS for tests: moto's server, and servers that answer as AWS does where moto does not."""

from __future__ import annotations

import json
import threading
import urllib.request
from dataclasses import dataclass, field
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest
from botocore.loaders import create_loader

from tests.support.ubuntu_images import add_image, set_parameter
from toolkit.cloud.aws.account import AwsAccount

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from botocore.loaders import Loader

REGION = "eu-west-1"
AMI = "ami-00000001"
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
    """

    url: str
    region: str
    environment: pytest.MonkeyPatch

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
        ec2 = self.account().client("ec2", region=region)
        (vpc,) = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
        gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
        ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc["VpcId"])
        (table,) = ec2.describe_route_tables(
            Filters=[{"Name": "vpc-id", "Values": [vpc["VpcId"]]}]
        )["RouteTables"]
        ec2.create_route(
            RouteTableId=table["RouteTableId"],
            DestinationCidrBlock="0.0.0.0/0",
            GatewayId=gateway,
        )

    def sign_in(self, user: str, policy: dict | None = None) -> None:
        """Make a user, give it the policy (none: it may do nothing), and act as it from now on."""
        iam = self.account().client("iam")
        iam.create_user(UserName=user)
        if policy is not None:
            iam.put_user_policy(
                UserName=user, PolicyName="tests", PolicyDocument=json.dumps(policy)
            )
        key = iam.create_access_key(UserName=user)["AccessKey"]
        self.environment.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
        self.environment.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])

    def enforce(self) -> None:
        """Heed policies from now on, to the end of the test."""
        self._post("reset-auth", "0")

    def reset(self) -> None:
        """Forget everything."""
        self._post("reset-auth", "inf")
        self._post("reset", "")

    def _post(self, action: str, body: str) -> None:
        request = urllib.request.Request(
            f"{self.url}/moto-api/{action}",
            data=body.encode(),
            headers={"Content-Type": "text/plain"},  # a form's content moto would not see
        )
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30):
            pass


@pytest.fixture(scope="session")
def moto_url() -> Iterator[str]:
    """Start moto's server in this process, where ``moto.backends.get_backend`` sets its states."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()


@lru_cache
def _loader(paths: str | None) -> Loader:
    return create_loader(paths)


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
    return monkeypatch


@pytest.fixture
def aws_keys(no_aws: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Set a key pair that no AWS knows."""
    no_aws.setenv("AWS_ACCESS_KEY_ID", "AKIATESTTESTTESTTEST")
    no_aws.setenv("AWS_SECRET_ACCESS_KEY", "tests/tests/tests/tests/tests/tests/test")
    return no_aws


@pytest.fixture
def moto(moto_url: str, aws_keys: pytest.MonkeyPatch) -> Iterator[Moto]:
    """Give an empty moto in which everything is allowed, and lead boto3 to it."""
    aws_keys.setenv("AWS_ENDPOINT_URL", moto_url)
    aws_keys.setenv("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")  # which each reset would read anew
    server = Moto(moto_url, REGION, aws_keys)
    server.reset()
    yield server
    server.reset()


@pytest.fixture
def answering(
    aws_keys: pytest.MonkeyPatch,
) -> Iterator[Callable[[str, Callable[[str], Reply]], Answering]]:
    """Return a function that puts a server of ours in the place of a service.

    It takes boto3's name of the service and a function that makes the reply to a request's body.
    """
    servers: list[ThreadingHTTPServer] = []

    def serve(service: str, reply: Callable[[str], Reply]) -> Answering:
        seen: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                seen.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
                answer = reply(seen[-1])
                body = answer.body.encode()
                self.send_response(answer.status)
                self.send_header("Content-Type", answer.type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        aws_keys.setenv(f"AWS_ENDPOINT_URL_{service.upper()}", url)
        return Answering(url, seen)

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


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
