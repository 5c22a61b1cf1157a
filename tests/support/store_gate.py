"""A gate in front of the store: only so many images come through, until it is opened."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from toolkit.storage import Location, Storage

__all__ = ["Gate", "gate_before"]

_ALL = 1_000_000


@dataclass(frozen=True)
class Gate:
    """The gate: the store is at `url`, and what it does not let through waits before it."""

    url: str
    passes: threading.Semaphore

    def open(self) -> None:
        """Let everything through from now on."""
        self.passes.release(_ALL)


@contextmanager
def gate_before(storage: Storage, images: Location, *, let_through: int) -> Iterator[Gate]:
    """Give a gate that lets through so many requests for objects below a location, and all others.

    Whoever works on more images than that is in the midst of it for as long as the test likes, on
    however fast a machine.
    """
    asking = f"GET /{images.bucket}/{images.key}/".encode()
    address = urlsplit(storage.settings.endpoint)

    class Handler(BaseRequestHandler):
        def handle(self) -> None:
            with (
                suppress(OSError),
                socket.create_connection((address.hostname, address.port)) as store,
            ):
                answering = threading.Thread(target=_pass_on, args=(store, self.request))
                answering.start()
                # A client sends its next request when it has the answer to the one before.
                while content := self.request.recv(1 << 16):
                    if content.startswith(asking):
                        gate.passes.acquire()
                    store.sendall(content)
                store.shutdown(socket.SHUT_WR)
                answering.join()

    class Server(ThreadingTCPServer):
        daemon_threads = True
        request_queue_size = 64

    with Server(("127.0.0.1", 0), Handler) as server:
        url = f"http://127.0.0.1:{server.server_address[1]}"
        gate = Gate(url, threading.Semaphore(let_through))
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield gate
        finally:
            gate.open()
            server.shutdown()


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while content := source.recv(1 << 16):
            target.sendall(content)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
