"""Hears from EC2, on an instance, that the instance is about to be taken away."""

from __future__ import annotations

import json

from toolkit.cloud.node.metadata import InstanceMetadata

__all__ = ["SpotNotices"]

# Present, with what will happen and when, from two minutes before it does; 404 until then:
# https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html
_NOTICE = "spot/instance-action"


class SpotNotices:
    """Asks the instance's metadata service for a notice of interruption."""

    def __init__(self) -> None:
        self._metadata = InstanceMetadata()

    def ask(self) -> str | None:
        """Return what EC2 is about to do with the instance and when, for people; mostly None.

        None, too, where nothing answers: a machine that is no instance gets no notice.
        """
        try:
            notice = json.loads(self._metadata.get(_NOTICE))
            return f"EC2 will {notice['action']} this instance at {notice['time']}"
        except (OSError, ValueError, KeyError, TypeError):  # not found is an OSError, too
            return None
