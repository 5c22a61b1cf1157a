"""A slow network in front of the object store: Shopify's toxiproxy, built once."""

from __future__ import annotations

import json
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, Request, build_opener

from localstack import process
from localstack.go_program import built_program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["built_server", "slow_store"]

VERSION = "v2.12.0"
_MODULE = f"github.com/Shopify/toxiproxy/v2/cmd/server@{VERSION}"
_PATIENCE_S = 10

# Loopback: whatever proxy the environment names is not for it.
_LOOPBACK = build_opener(ProxyHandler({}))


def built_server(cache: Path, *, log: Path) -> Path:
    """Return the toxiproxy server, built first if this user has none yet.

    Parameters
    ----------
    cache
        The user's cache folder.
    log
        Takes the compiler's output.

    Raises
    ------
    BuildError
        It can't be built.
    """
    return built_program(_MODULE, cache / "bin" / f"toxiproxy-{VERSION}", log=log)


@contextmanager
def slow_store(
    server: Path, endpoint: str, *, latency_ms: int = 0, upload_kb_s: int | None = None, log: Path
) -> Iterator[str]:
    """Give the URL of a proxy in front of an object store, as a slow line leads to it.

    Parameters
    ----------
    server
        The toxiproxy server.
    endpoint
        URL of the store.
    latency_ms
        Milliseconds that each answer is delayed by, that of a GET as of any other request; 0 for
        the same proxy without a delay.
    upload_kb_s
        Kilobytes a second that go to the store through each connection; None: as many as may be.
    log
        Takes what the server says.
    """
    api, listen = process.free_ports(2)
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [str(server), "-host", "127.0.0.1", "-port", str(api)]
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out) as running:
        try:
            _wait_for(api)
            proxy = {
                "name": "store",
                "listen": f"127.0.0.1:{listen}",
                "upstream": urlsplit(endpoint).netloc,
            }
            _post(api, "/proxies", proxy)
            if latency_ms:
                toxic = {"type": "latency", "stream": "downstream"}
                attributes = {"latency": latency_ms, "jitter": 0}
                _post(api, "/proxies/store/toxics", {**toxic, "attributes": attributes})
            if upload_kb_s:
                toxic = {"type": "bandwidth", "stream": "upstream"}
                attributes = {"rate": upload_kb_s}
                _post(api, "/proxies/store/toxics", {**toxic, "attributes": attributes})
            yield f"http://127.0.0.1:{listen}"
        finally:
            running.terminate()


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            with _LOOPBACK.open(f"http://127.0.0.1:{port}/version", timeout=1):
                return
        except URLError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _post(port: int, path: str, document: dict[str, Any]) -> None:
    request = Request(
        f"http://127.0.0.1:{port}{path}",
        data=json.dumps(document).encode(),
        headers={"Content-Type": "application/json"},
    )
    with _LOOPBACK.open(request, timeout=_PATIENCE_S):
        pass
