"""A server in front of moto, which passes requests on and answers some as AWS would."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

if TYPE_CHECKING:
    from tests.support.moto import Moto
    from toolkit.cloud.aws.account import AwsAccount

_NOT_PASSED_ON = {"connection", "content-length", "keep-alive", "transfer-encoding"}


@dataclass(frozen=True)
class Asked:
    """A request: boto3's service, AWS's name of the action, the parameters of EC2, IAM and STS."""

    service: str
    action: str
    parameters: dict[str, str]

    @property
    def name(self) -> str:
        return f"{self.service}:{self.action}"


@dataclass(frozen=True)
class Answer:
    """An answer of ours. With `after`, moto does what was asked for, and its answer is lost."""

    status: int
    body: str
    after: bool = False
    type: str = "text/xml"


Rule = Callable[[Asked], "Answer | None"]


@dataclass
class InFront:
    """The server.

    Attributes
    ----------
    asked
        All requests so far.
    rule
        Says how to answer a request; None: moto does.
    then
        Told each request that moto has answered, with the answer.
    """

    url: str
    asked: list[Asked] = field(default_factory=list)
    rule: Rule = lambda _: None
    then: Callable[[Asked, bytes], None] = lambda *_: None

    def names(self, *, writing: bool = False) -> list[str]:
        """Return what was asked for, in order; all, or what changes something."""
        reading = ("Describe", "Get", "List")
        return [
            each.name for each in self.asked if not (writing and each.action.startswith(reading))
        ]

    def count(self, name: str) -> int:
        return self.names().count(name)


def refusal(asked: Asked, code: str, message: str, *, after: bool = False) -> Answer:
    """Refuse a request in the form of its service."""
    if asked.service == "ssm":
        body = f'{{"__type": "{code}", "message": "{message}"}}'
        return Answer(400, body, after, "application/x-amz-json-1.1")
    error = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    if asked.service == "ec2":
        ids = "<RequestID>request-1</RequestID>"
        return Answer(400, f"<Response><Errors>{error}</Errors>{ids}</Response>", after)
    return Answer(
        403, f"<ErrorResponse>{error}<RequestId>request-1</RequestId></ErrorResponse>", after
    )


def denial(asked: Asked, *, after: bool = False) -> Answer:
    """Deny a request as the service does: EC2, IAM, SSM have a code each."""
    codes = {"ec2": "UnauthorizedOperation", "ssm": "AccessDeniedException"}
    return refusal(
        asked,
        codes.get(asked.service, "AccessDenied"),
        f"User: arn:aws:iam::123456789012:user/ann is not authorized to perform: {asked.name}",
        after=after,
    )


@contextmanager
def in_front_of(upstream: str) -> Iterator[InFront]:
    """Give a server in front of another one."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            asked = _asked(self.headers, content)
            with lock:
                front.asked.append(asked)
                answer = front.rule(asked)
            if answer is None or answer.after:
                status, headers, body = self._passed_on(content)
                with lock:
                    front.then(asked, body)
            if answer is not None:
                status, body = answer.status, answer.body.encode()
                headers = [("Content-Type", answer.type)]
            self.send_response(status)
            for name, value in headers:
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_PUT = do_DELETE = do_HEAD = do_POST  # noqa: N815 - http.server's names

        def _passed_on(self, content: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
            connection = http.client.HTTPConnection(urlsplit(upstream).netloc, timeout=60)
            try:
                connection.request(self.command, self.path, content, dict(self.headers))
                response = connection.getresponse()
                kept = [
                    (name, value)
                    for name, value in response.getheaders()
                    if name.lower() not in _NOT_PASSED_ON
                ]
                return response.status, kept, response.read()
            finally:
                connection.close()

        def log_message(self, *_: object) -> None:
            pass

    lock = threading.RLock()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    front = InFront(f"http://127.0.0.1:{server.server_port}")
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield front
    finally:
        server.shutdown()
        server.server_close()


def _asked(headers: dict[str, str], content: bytes) -> Asked:
    # AWS4-HMAC-SHA256 Credential=KEY/DATE/REGION/SERVICE/aws4_request, …
    service = headers.get("Authorization", "").partition("/aws4_request")[0].rpartition("/")[2]
    if target := headers.get("X-Amz-Target"):
        return Asked(service, target.rpartition(".")[2], {})
    try:
        parameters = dict(parse_qsl(content.decode()))
    except UnicodeDecodeError:
        parameters = {}
    return Asked(service, parameters.get("Action", ""), parameters)


@contextmanager
def leading_through(moto: Moto) -> Iterator[InFront]:
    """Give a server in front of the tests' moto, and lead boto3 to it from now on."""
    with in_front_of(moto.url) as front:
        moto.environment.setenv("AWS_ENDPOINT_URL", front.url)
        yield front


def opened(account: AwsAccount) -> AwsAccount:
    """Open the account's clients, which then go on to lead to where they lead now."""
    for service in ("ec2", "iam", "ssm"):
        account.client(service)
    return account
