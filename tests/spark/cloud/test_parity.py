"""What the rehearsal and the node hand over of the images that both have seen, compared."""

from __future__ import annotations

from dataclasses import replace

import pytest

from toolkit.cloud.parity import HERE, THERE, keep_features, parity
from toolkit.cloud.status import PromotionFolder
from toolkit.compare import read_features
from toolkit.runs import new_run_id


@pytest.fixture
def folder(storage) -> PromotionFolder:
    return PromotionFolder(storage, new_run_id())


@pytest.fixture
def sample(storage, record) -> list[str]:
    return sorted(read_features(storage, record))[::4]


def keep(folder, name, storage, record, sample):
    keep_features(folder, name, storage=storage, record=record, sample=sample)


def test_same_images_of_both_agree(folder, storage, record, sample):
    keep(folder, HERE, storage, record, sample)
    keep(folder, THERE, storage, replace(record, run_id=record.run_id), sample)
    compared = parity(folder)
    assert compared.agree
    assert compared.shared == len(sample) == 6


def test_image_that_the_node_could_not_read_is_a_disagreement(folder, storage, record, sample):
    keep(folder, HERE, storage, record, sample)
    keep(folder, THERE, storage, record, sample[1:])
    compared = parity(folder)
    assert (compared.agree, compared.only_a, compared.only_b) == (False, 1, 0)


def test_quarantined_image_is_in_neither(folder, storage, record, sample):
    for name in (HERE, THERE):
        keep(folder, name, storage, record, [*sample, "Bad/text.jpg"])
    assert parity(folder).agree


@pytest.mark.parametrize("only", [HERE, THERE])
def test_without_one_of_them_there_is_nothing_to_compare(folder, storage, record, sample, only):
    keep(folder, only, storage, record, sample)
    assert parity(folder) is None
