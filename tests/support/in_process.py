"""HTTP for boto3 without a socket: a URL that is served in this process is called as a function."""

from __future__ import annotations

import io
from contextlib import contextmanager
from dataclasses import dataclass, field
from traceback import format_exc
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes, urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pytest

    WsgiApplication = Callable[[dict[str, Any], Callable[..., Any]], Any]


@dataclass(frozen=True)
class HttpRequest:
    """A request: its method, the path with the query, headers and body."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class HttpReply:
    """A reply. Without a status there is none: the connection ends."""

    status: int = 0
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""


if TYPE_CHECKING:
    Server = Callable[[HttpRequest], HttpReply]

_SERVERS: dict[str, Server] = {}


@contextmanager
def serving(url: str, server: Server) -> Iterator[None]:
    """Have a function answer what this process sends to a URL's host and port."""
    place = urlsplit(url).netloc
    _SERVERS[place] = server
    try:
        yield
    finally:
        del _SERVERS[place]


def server_of(url: str) -> Server | None:
    """Return the function that answers for a URL, if it is served in this process."""
    return _SERVERS.get(urlsplit(url).netloc)


def of_application(application: WsgiApplication) -> Server:
    """Return the function that calls a WSGI application, whose errors are its own."""

    def answer(request: HttpRequest) -> HttpReply:
        started: list[Any] = []
        try:
            chunks = application(_environ(request), lambda *given: started.extend(given[:2]))
            body = b"".join(chunks)
        except Exception:  # noqa: BLE001 - as every server does
            return HttpReply(500, [("Content-Type", "text/plain")], format_exc().encode())
        status, headers = started
        return HttpReply(int(status.split()[0]), headers, body)

    return answer


def connect_boto3(patch: pytest.MonkeyPatch) -> None:
    """Let boto3 call the servers of this process, and send everything else as ever."""
    from botocore.httpsession import URLLib3Session

    send = URLLib3Session.send

    def call(session: URLLib3Session, request: Any) -> Any:
        server = server_of(request.url)
        return send(session, request) if server is None else _called(server, request)

    patch.setattr(URLLib3Session, "send", call)


def _called(server: Server, request: Any) -> Any:
    from botocore.awsrequest import AWSResponse
    from botocore.exceptions import ConnectionClosedError

    parts = urlsplit(request.url)
    headers = {
        name: value.decode() if isinstance(value, bytes) else str(value)
        for name, value in request.headers.items()
    }
    reply = server(
        HttpRequest(
            request.method,
            parts.path + (f"?{parts.query}" if parts.query else ""),
            {"Host": parts.netloc} | headers,
            _content(request.body),
        )
    )
    if not reply.status:
        raise ConnectionClosedError(endpoint_url=request.url)
    body = b"" if request.method == "HEAD" else reply.body
    answer = AWSResponse(request.url, reply.status, dict(reply.headers), _Raw(body))
    if not request.stream_output:
        _ = answer.content
    return answer


def _content(body: Any) -> bytes:
    if hasattr(body, "read"):
        body = body.read()
    return body.encode() if isinstance(body, str) else bytes(body or b"")


class _Raw(io.BytesIO):
    """A body as urllib3 gives it."""

    def stream(self, **_: object) -> Iterator[bytes]:
        yield self.read()


def _environ(request: HttpRequest) -> dict[str, Any]:
    path, _, query = request.target.partition("?")
    host, _, port = request.headers["Host"].partition(":")
    own = {
        "CONTENT_LENGTH": str(len(request.body)),
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query,
        "RAW_URI": request.target,
        "REMOTE_ADDR": "127.0.0.1",
        "REQUEST_METHOD": request.method,
        "REQUEST_URI": request.target,
        "SCRIPT_NAME": "",
        "SERVER_NAME": host,
        "SERVER_PORT": port or "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.errors": io.StringIO(),
        "wsgi.input": io.BytesIO(request.body),
        "wsgi.input_terminated": True,
        "wsgi.multiprocess": False,
        "wsgi.multithread": True,
        "wsgi.run_once": False,
        "wsgi.url_scheme": "http",
        "wsgi.version": (1, 0),
    }
    headers = {name.upper().replace("-", "_"): value for name, value in request.headers.items()}
    own["CONTENT_TYPE"] = headers.pop("CONTENT_TYPE", "")
    headers.pop("CONTENT_LENGTH", None)
    return own | {f"HTTP_{name}": value for name, value in headers.items()}
