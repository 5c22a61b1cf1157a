"""Where a node of several is."""

from __future__ import annotations

import pytest

from toolkit.cloud.node.spark_cluster import Seat
from toolkit.errors import JobError


def test_node_that_no_metadata_service_tells_where_it_is_says_so(monkeypatch):
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(JobError, match="does not say where this node is"):
        Seat.here()
