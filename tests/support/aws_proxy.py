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

from tests.support.in_process import HttpReply, HttpRequest, server_of, serving

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
    """An answer of ours; without a status it is lost. With `after`, moto does what is asked."""

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


class ProxyServer(ThreadingHTTPServer):
    """A server in front of another one: reached by URL, or from this process as a function."""

    daemon_threads = True

    def __init__(self, upstream: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.upstream = upstream
        self.front: InFront | None = None
        self._lock = threading.RLock()

    @contextmanager
    def running(self) -> Iterator[None]:
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        try:
            with serving(self.url, self.answer):
                yield
        finally:
            self.shutdown()
            self.server_close()

    @contextmanager
    def begun(self) -> Iterator[InFront]:
        """Keep the requests of the block, and heed its rule."""
        self.front = InFront(self.url)
        try:
            yield self.front
        finally:
            self.front = None

    def answer(self, request: HttpRequest) -> HttpReply:
        front = self.front
        if front is None:
            return HttpReply()  # a process that has outlived its test
        asked = _asked(request.headers, request.body)
        with self._lock:
            front.asked.append(asked)
            answer = front.rule(asked)
        reply = HttpReply()
        if answer is None or answer.after:
            reply = self._passed_on(request)
            with self._lock:
                front.then(asked, reply.body)
        if answer is not None:
            reply = HttpReply(answer.status, [("Content-Type", answer.type)], answer.body.encode())
        return reply

    def _passed_on(self, request: HttpRequest) -> HttpReply:
        if upstream := server_of(self.upstream):
            return upstream(request)
        connection = http.client.HTTPConnection(urlsplit(self.upstream).netloc, timeout=60)
        try:
            connection.request(request.method, request.target, request.body, request.headers)
            response = connection.getresponse()
            return HttpReply(response.status, response.getheaders(), response.read())
        finally:
            connection.close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ProxyServer

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        request = HttpRequest(self.command, self.path, dict(self.headers), content)
        reply = self.server.answer(request)
        if not reply.status:
            self.close_connection = True
            return
        self.send_response(reply.status)
        for name, value in reply.headers:
            if name.lower() not in _NOT_PASSED_ON:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        self.wfile.write(reply.body)

    do_GET = do_PUT = do_DELETE = do_HEAD = do_POST  # noqa: N815 - http.server's names

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def in_front_of(upstream: str) -> Iterator[InFront]:
    """Give a server in front of another one."""
    server = ProxyServer(upstream)
    with server.running(), server.begun() as front:
        yield front


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
    with moto.proxy.begun() as front:
        moto.environment.setenv("AWS_ENDPOINT_URL", front.url)
        yield front


def opened(account: AwsAccount) -> AwsAccount:
    """Open the account's clients, which then go on to lead to where they lead now."""
    for service in ("ec2", "iam", "ssm"):
        account.client(service)
    return account
