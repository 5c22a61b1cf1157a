"""Two runs side by side: on the real files of a real run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from toolkit.compare import compare_features, compare_runs, read_features
from toolkit.errors import RequestError


def test_run_agrees_with_itself(storage, record):
    compared = compare_runs(storage, record, record)
    assert compared.agree
    assert (compared.shared, compared.only_a, compared.only_b) == (24, 0, 0)
    assert compared.least_cosine == pytest.approx(1)


def test_features_of_some_images_are_those_of_all(storage, record):
    everything = read_features(storage, record)
    keys = sorted(everything)[3:8]
    some = read_features(storage, record, keys=[*keys, "Bad/text.jpg", "no/such.jpg"])
    assert sorted(some) == keys
    for key in keys:
        label, vector = some[key]
        assert label == everything[key][0] == key.partition("/")[0]
        np.testing.assert_array_equal(vector, everything[key][1])


def changed(features, key, *, label=None, vector=None):
    old_label, old_vector = features[key]
    return features | {key: (label or old_label, old_vector if vector is None else vector)}


@pytest.mark.parametrize("what", ["a label", "a vector", "an image"])
def test_difference_in_one_image_is_a_disagreement(storage, record, what):
    features = read_features(storage, record)
    key = next(iter(features))
    other = {
        "a label": lambda: changed(features, key, label="Durian"),
        "a vector": lambda: changed(features, key, vector=np.roll(features[key][1], 1)),
        "an image": lambda: {name: row for name, row in features.items() if name != key},
    }[what]()
    compared = compare_features(record, features, record, other)
    assert not compared.agree
    assert compared.shared == len(other)


def test_runs_of_other_dimensions_can_not_be_compared(storage, record):
    with pytest.raises(RequestError, match="dimensions"):
        compare_runs(storage, record, replace(record, dimensions=7))


def test_run_without_features_can_not_be_compared(storage, record):
    with pytest.raises(RequestError, match="has no features"):
        compare_runs(storage, record, replace(record, run_id="20200101-000000-00000"))
