"""Hears from EC2, on an instance, that the instance is about to be taken away."""

from __future__ import annotations

import json
import os
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

__all__ = ["ENDPOINT_VARIABLE", "SpotNotices"]

ENDPOINT_VARIABLE = "AWS_EC2_METADATA_SERVICE_ENDPOINT"
"""Variable that leads boto3, and this, to another metadata service."""

_ENDPOINT = "http://169.254.169.254"
# Present, with what will happen and when, from two minutes before it does; 404 until then:
# https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html
_NOTICE = "/latest/meta-data/spot/instance-action"
_TOKEN = "/latest/api/token"  # noqa: S105 - a path
_TOKEN_SECONDS = 21_600  # six hours, the longest that IMDSv2 gives
_PATIENCE_SECONDS = 2
_UNAUTHORIZED = 401

# The service is on the instance: whatever proxy the environment names is not for it.
_DIRECT = build_opener(ProxyHandler({}))


class SpotNotices:
    """Asks the instance's metadata service (IMDSv2) for a notice of interruption."""

    def __init__(self) -> None:
        self._endpoint = os.environ.get(ENDPOINT_VARIABLE, _ENDPOINT).rstrip("/")
        self._token: str | None = None

    def ask(self) -> str | None:
        """Return what EC2 is about to do with the instance and when, for people; mostly None.

        None, too, where nothing answers: a machine that is no instance gets no notice.
        """
        try:
            notice = json.loads(self._get(_NOTICE))
            return f"EC2 will {notice['action']} this instance at {notice['time']}"
        except (OSError, ValueError, KeyError, TypeError):  # not found is an OSError, too
            return None

    def _get(self, path: str) -> bytes:
        try:
            return self._request(path)
        except HTTPError as exc:
            if exc.code != _UNAUTHORIZED:
                raise
        self._token = None  # it has expired
        return self._request(path)

    def _request(self, path: str) -> bytes:
        if self._token is None:
            ttl = {"X-aws-ec2-metadata-token-ttl-seconds": str(_TOKEN_SECONDS)}
            self._token = self._answer(_TOKEN, headers=ttl, method="PUT").decode()
        return self._answer(path, headers={"X-aws-ec2-metadata-token": self._token})

    def _answer(self, path: str, *, headers: dict[str, str], method: str = "GET") -> bytes:
        url = self._endpoint + path  # of the environment's own choosing
        request = Request(url, headers=headers, method=method)  # noqa: S310
        with _DIRECT.open(request, timeout=_PATIENCE_SECONDS) as answer:
            content: bytes = answer.read()
        return content
