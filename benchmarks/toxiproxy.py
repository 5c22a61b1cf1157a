"""A slow network in front of the object store: Shopify's toxiproxy, built once."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, Request, build_opener

from localstack import go, process

if TYPE_CHECKING:
    from collections.abc import Iterator

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
    RuntimeError
        It can't be built.
    """
    program = cache / "bin" / f"toxiproxy-{VERSION}"
    with process.locked(cache / "toxiproxy-build.lock"):
        if not program.exists():
            _build(program, log=log)
    return program


@contextmanager
def slow_store(server: Path, endpoint: str, *, latency_ms: int, log: Path) -> Iterator[str]:
    """Give the URL of a proxy in front of an object store, which holds every answer back.

    Parameters
    ----------
    server
        The toxiproxy server.
    endpoint
        URL of the store.
    latency_ms
        Milliseconds that each answer is delayed by, that of a GET as of any other request; 0 for
        the same proxy without a delay.
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
            yield f"http://127.0.0.1:{listen}"
        finally:
            running.terminate()


def _build(program: Path, *, log: Path) -> None:
    workshop = program.parent.parent / "go-toxiproxy"
    toolchain = go.installed_go() or go.fetched_go(workshop, log=log)
    program.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=program.parent, prefix=".toxiproxy-") as fresh:
        own = {"GOBIN": fresh, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local"}
        status = process.run_owned(
            [toolchain.program, "install", "-trimpath", _MODULE],
            env=os.environ | toolchain.env | own,
            log=log,
        )
        if status != 0:
            last = "\n".join(process.tail(log, lines=5))
            raise RuntimeError(f"`go install {_MODULE}` failed:\n{last}")
        Path(fresh, "server").replace(program)
    shutil.rmtree(workshop, ignore_errors=True)


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
