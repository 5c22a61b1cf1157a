"""The cases: what a round measures, in which order, and what is made of it."""

import numpy as np
import pytest

from benchmarks.__main__ import _todo
from benchmarks.bench import FULL, SMOKE, Bench, Case, Step
from benchmarks.cases import CASES
from benchmarks.cases.quality import Features, cosines, probe_accuracy
from benchmarks.images import repeated, repeated_with_a_large_one
from benchmarks.results import Measurement, Results
from toolkit.profiles import S3Settings
from toolkit.storage import Storage

pytestmark = pytest.mark.xdist_group("scikit-learn")  # costly to import


@pytest.fixture
def results(tmp_path):
    return Results(tmp_path / "results.jsonl")


def case(name, *sizes, once=False):
    steps = [Step(subject="ours", size=size, measure=dict, once=once) for size in sizes]
    return Case(name=name, about="", steps=lambda _: steps, tables=lambda _: [])


def todo(results, *cases, rounds):
    steps = _todo(cases, bench=None, rounds=rounds, results=results)
    return [(number, each.name, step.size) for number, each, step in steps]


def test_every_round_measures_everybody_before_the_next_begins(results):
    planned = todo(results, case("a", 1, 2), case("b", 3), rounds=2)
    first = [(1, "a", 1), (1, "a", 2), (1, "b", 3)]
    assert planned == [*first, *((2, *rest) for _, *rest in first)]


def test_what_was_measured_is_not_measured_again(results):
    results.add(Measurement(case="a", subject="ours", size=2, round=1, figures={}, at="", load=0))
    assert todo(results, case("a", 1, 2), rounds=2) == [(1, "a", 1), (2, "a", 1), (2, "a", 2)]


def test_what_does_not_change_is_measured_in_the_first_round(results):
    planned = todo(results, case("a", 1, once=True), case("b", 2), rounds=2)
    assert planned == [(1, "a", 1), (1, "b", 2), (2, "b", 2)]


@pytest.mark.parametrize("scale", [FULL, SMOKE])
@pytest.mark.parametrize("name", CASES)
def test_no_two_steps_of_a_case_are_the_same_measurement(name, scale, tmp_path):
    steps = CASES[name].steps(Bench(stack=None, scale=scale, logs=tmp_path))
    keys = [(step.subject, step.size) for step in steps]
    assert keys
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("name", CASES)
def test_without_results_a_case_makes_no_rows(name, results):
    assert all(not table.rows for table in CASES[name].tables(results))


def test_rows_are_as_long_as_their_heads(results):
    for each in CASES.values():
        for step in each.steps(Bench(stack=None, scale=SMOKE, logs=results.file.parent)):
            figures = {"worker_parts_mib": [1.0], "dimensions": 64, "seconds": step.size}
            results.measurements.append(
                Measurement(
                    case=each.name,
                    subject=step.subject,
                    size=step.size,
                    round=1,
                    figures=figures,
                    at="",
                    load=0,
                )
            )
        tables = each.tables(results)
        assert any(table.rows for table in tables)
        for table in tables:
            assert {len(row) for row in table.rows} <= {len(table.columns)}


def test_cosine_is_one_for_the_same_direction_whatever_the_length():
    vectors = np.array([[1, 0], [3, 4], [0, 2]], np.float32)
    others = np.array([[2, 0], [3, 4], [1, 0]], np.float32)
    assert cosines(vectors, others) == pytest.approx([1, 1, 0])


def test_the_probe_learns_from_training_and_is_judged_on_test():
    rng = np.random.default_rng(0)
    origins, labels, vectors = [], [], []
    for split, flipped in (("Training", False), ("Test", True)):
        for number in range(40):
            apple = number % 2 == 0
            origins.append(f"s3a://fruits/images/samples/{split}/x/{number}.jpg")
            labels.append("apple" if apple else "pear")
            # In Test, a quarter of the apples look like pears.
            looks_like_apple = apple and not (flipped and number % 8 == 0)
            vectors.append(rng.normal(4 if looks_like_apple else -4, 1, 8))
    features = Features(origins, labels, np.array(vectors, np.float32))
    assert probe_accuracy(features) == pytest.approx(1 - 5 / 40)


class RememberedStore(Storage):
    """A store that remembers the names of its objects."""

    def __init__(self, *keys):
        super().__init__(S3Settings())
        object.__setattr__(self, "keys", set(keys))

    def exists(self, location):
        return location.key in self.keys

    def objects(self, location):
        return iter([key for key in self.keys if key.startswith(f"{location.key}/")])

    def upload(self, file, location, *, in_parts=False):
        assert file.is_file()
        self.keys.add(location.key)


def test_images_are_repeated_under_names_of_their_own():
    store = RememberedStore()
    prefix = repeated(store, 510)  # more than there are
    assert len(store.keys) == 510
    assert all(key.startswith(f"{prefix.key}/") for key in store.keys)
    assert len({key.split("/")[-2] for key in store.keys}) == 18
    repeated(store, 510)
    assert len(store.keys) == 510


def test_the_large_image_comes_on_top_of_the_others_and_is_made_once():
    large = "images/repeated-3-and-a-large-one/Large/large.jpg"
    store = RememberedStore(large)
    assert repeated_with_a_large_one(store, 3).key == "images/repeated-3-and-a-large-one"
    assert len(store.keys) == 4
