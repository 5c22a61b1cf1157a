"""The records of promotions, as JSON."""

from __future__ import annotations

import json

import pytest

from toolkit.cloud.journal import PromotionRecord
from toolkit.errors import RequestError
from toolkit.runs import Owner

RECORD = PromotionRecord(
    promotion_id="20261125-101500-123ab",
    owner=Owner(host="a-laptop", pid=1, started=0.0),
    fingerprint="f" * 64,
    bundle="b" * 64,
    region="eu-west-1",
    instance_type="c7i.2xlarge",
    nodes=1,
    spot=False,
    dead_man_minutes=90,
)


def test_fields_of_a_newer_version_are_left_out():
    fields = json.loads(RECORD.to_json()) | {"mood": "fine"}
    assert PromotionRecord.from_json(json.dumps(fields)) == RECORD


def test_what_is_no_record_is_refused():
    with pytest.raises(RequestError, match="no record of a promotion: owner"):
        PromotionRecord.from_json(json.dumps({"promotion_id": "1"}))
