"""What an instance learns of itself: EC2's metadata service, by IMDSv2."""

from __future__ import annotations

import os
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

__all__ = ["ENDPOINT_VARIABLE", "InstanceMetadata"]

ENDPOINT_VARIABLE = "AWS_EC2_METADATA_SERVICE_ENDPOINT"
"""Variable that leads boto3, and this, to another metadata service."""

_ENDPOINT = "http://169.254.169.254"
_TOKEN = "/latest/api/token"  # noqa: S105 - a path
_TOKEN_SECONDS = 21_600  # six hours, the longest that IMDSv2 gives
_PATIENCE_SECONDS = 2
_UNAUTHORIZED = 401

# The service is on the instance: whatever proxy the environment names is not for it.
_DIRECT = build_opener(ProxyHandler({}))


class InstanceMetadata:
    """Asks the instance's metadata service."""

    def __init__(self) -> None:
        self._endpoint = os.environ.get(ENDPOINT_VARIABLE, _ENDPOINT).rstrip("/")
        self._token: str | None = None

    def get(self, name: str) -> str:
        """Return a value, for example ``local-ipv4``; ``OSError`` if there is none.

        The names are those of
        https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-instance-metadata.html
        """
        path = f"/latest/meta-data/{name}"
        try:
            return self._request(path)
        except HTTPError as exc:
            if exc.code != _UNAUTHORIZED:
                raise
        self._token = None  # it has expired
        return self._request(path)

    def _request(self, path: str) -> str:
        if self._token is None:
            ttl = {"X-aws-ec2-metadata-token-ttl-seconds": str(_TOKEN_SECONDS)}
            self._token = self._answer(_TOKEN, headers=ttl, method="PUT")
        return self._answer(path, headers={"X-aws-ec2-metadata-token": self._token})

    def _answer(self, path: str, *, headers: dict[str, str], method: str = "GET") -> str:
        url = self._endpoint + path  # of the environment's own choosing
        request = Request(url, headers=headers, method=method)  # noqa: S310
        with _DIRECT.open(request, timeout=_PATIENCE_SECONDS) as answer:
            content: bytes = answer.read()
        return content.decode()
