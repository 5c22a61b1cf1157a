"""Ask a service of this machine, without the proxies that the environment may name."""

from __future__ import annotations

import http.client
import socket

__all__ = ["get", "listens"]

_LOOPBACK = "127.0.0.1"


def get(port: int, path: str, *, timeout_s: float = 5.0) -> bytes | None:
    """Return the body that ``http://127.0.0.1:<port><path>`` answers with, or None.

    Parameters
    ----------
    port
        Port of the service.
    path
        Path with its leading slash.
    timeout_s
        Seconds to wait for each answer of the socket.

    Returns
    -------
    bytes or None
        None when nobody answers there with status 200.
    """
    connection = http.client.HTTPConnection(_LOOPBACK, port, timeout=timeout_s)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.read() if response.status == http.HTTPStatus.OK else None
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def listens(port: int) -> bool:
    """Say whether a connection to the port of this machine is accepted."""
    try:
        with socket.create_connection((_LOOPBACK, port), timeout=1):
            return True
    except OSError:
        return False
