"""What a node says of itself in the bucket, and which promotion is meant."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from toolkit.cloud.status import PromotionFolder, Stage, Status, find_promotion
from toolkit.errors import RequestError
from toolkit.runs import new_run_id

if TYPE_CHECKING:
    from toolkit.storage import Storage

STATUS = Status("running", "i-0123456789abcdef0", stages=(Stage("Features", total=120, done=48),))


@pytest.fixture
def folder(storage) -> PromotionFolder:
    return PromotionFolder(storage, new_run_id())


def test_reported_status_is_read_with_the_time_of_its_writing(folder):
    assert folder.status() is None
    old = replace(STATUS, heartbeat="2020-01-01T00:00:00+00:00")
    folder.report(old)
    read = folder.status()
    assert replace(read, heartbeat=old.heartbeat) == old
    assert read.heartbeat > old.heartbeat


def test_stop_is_seen_once_it_is_asked_for(folder):
    assert not folder.is_asked_to_stop()
    folder.ask_to_stop()
    assert folder.is_asked_to_stop()


def test_promotions_do_not_meet(folder, storage):
    folder.report(STATUS)
    folder.ask_to_stop()
    other = PromotionFolder(storage, new_run_id())
    assert other.status() is None
    assert not other.is_asked_to_stop()


@pytest.fixture
def promotions(storage) -> Storage:
    """Return a store, below all that others may have left, with three promotions and no fourth."""
    for promotion_id in ("20000101-000000-000aa", "20000101-000000-000ab", "20000102-000000-000aa"):
        begun = PromotionFolder(storage, promotion_id)
        storage.write(begun.file("job.json"), b"{}")
        begun.report(STATUS)
    PromotionFolder(storage, "20000103-000000-000aa").report(STATUS)
    return storage


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("20000101-000000-000aa", "20000101-000000-000aa"),
        ("20000102", "20000102-000000-000aa"),
        ("20000101-000000-000ab", "20000101-000000-000ab"),
    ],
)
def test_promotion_is_found_by_its_id_or_the_start_of_it(promotions, written, meant):
    assert find_promotion(promotions, written) == PromotionFolder(promotions, meant)


def test_whole_id_that_others_begin_with_is_meant(promotions):
    longer = PromotionFolder(promotions, "20000102-000000-000aa0")
    promotions.write(longer.file("job.json"), b"{}")
    try:
        found = find_promotion(promotions, "20000102-000000-000aa")
        assert found.promotion_id == "20000102-000000-000aa"
    finally:
        promotions.delete_all(longer.location)


def test_start_that_fits_several_promotions_names_them(promotions):
    several = "'20000101' fits several .*: 20000101-000000-000aa, 20000101-000000-000ab"
    with pytest.raises(RequestError, match=several):
        find_promotion(promotions, "20000101")


@pytest.mark.parametrize("written", ["20000103", "20000103-000000-000aa", "no-such", "1"])
def test_folder_without_a_job_is_no_promotion(promotions, written):
    with pytest.raises(RequestError, match=f"no promotion '{written}' in s3a://"):
        find_promotion(promotions, written)


def test_newest_promotion_is_found_without_an_id(promotions):
    newest = PromotionFolder(promotions, new_run_id())
    promotions.write(newest.file("job.json"), b"{}")
    PromotionFolder(promotions, f"{newest.promotion_id}0").report(STATUS)
    assert find_promotion(promotions) == newest
