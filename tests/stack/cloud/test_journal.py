"""The records of promotions in the bucket, and which of them a new call goes on with."""

from __future__ import annotations

from dataclasses import replace

import pytest

from toolkit.cloud.journal import PromotionRecord, load_record, save_record, unfinished
from toolkit.cloud.status import PromotionFolder
from toolkit.errors import RequestError
from toolkit.runs import Owner, new_run_id

DEAD = Owner(host=Owner.this_process().host, pid=1, started=-1.0)
RECORD = PromotionRecord(
    promotion_id="20261125-101500-123ab",
    owner=DEAD,
    fingerprint="f" * 64,
    bundle="b" * 64,
    region="eu-west-1",
    instance_type="c7i.2xlarge",
    nodes=1,
    spot=False,
    dead_man_minutes=90,
)


@pytest.fixture
def begin(storage):
    """Return a function that puts a promotion into the bucket, of a request of the test's own."""
    fingerprint = new_run_id()

    def put(**changes) -> PromotionRecord:
        record = replace(
            RECORD, **({"promotion_id": new_run_id(), "fingerprint": fingerprint} | changes)
        )
        save_record(PromotionFolder(storage, record.promotion_id), record)
        return record

    return put


def test_record_comes_back_as_it_was_written(storage, begin):
    record = begin()
    assert load_record(PromotionFolder(storage, record.promotion_id)) == record


def test_unknown_promotion_is_named(storage):
    with pytest.raises(RequestError, match="no promotion 20200101"):
        load_record(PromotionFolder(storage, "20200101-000000-00000"))


def test_promotion_that_nobody_sees_to_is_gone_on_with(storage, begin):
    record = begin()
    assert unfinished(storage, record.fingerprint) == record


def test_promotion_of_a_living_process_is_left_alone(storage, begin):
    record = begin(owner=Owner.this_process())
    assert unfinished(storage, record.fingerprint) is None


def test_promotion_that_was_detached_from_is_gone_on_with(storage, begin):
    record = begin(owner=None)
    assert unfinished(storage, record.fingerprint) == record


def test_promotion_of_another_machine_is_named_and_not_doubled(storage, begin):
    record = begin(owner=Owner(host="elsewhere", pid=1, started=0.0))
    with pytest.raises(RequestError, match="begun on elsewhere") as refused:
        unfinished(storage, record.fingerprint)
    assert f"promote --follow {record.promotion_id}" in refused.value.remedy


def test_promotion_of_another_version_is_passed_over(storage, begin):
    record = begin()
    later = PromotionFolder(storage, "99991231-000000-00000")
    storage.write(later.file("promotion.json"), b"{}")
    try:
        assert unfinished(storage, record.fingerprint) == record
    finally:
        storage.delete_all(later.location)


def test_promotion_that_has_ended_is_not_gone_on_with(storage, begin):
    record = begin()
    save_record(PromotionFolder(storage, record.promotion_id), record.ended("done"))
    assert unfinished(storage, record.fingerprint) is None


def test_other_request_is_another_promotion(storage, begin):
    begin()
    assert unfinished(storage, "another") is None
