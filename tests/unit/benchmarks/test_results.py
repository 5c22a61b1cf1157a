"""A measurement is on disk as soon as it ends: an interrupted benchmark goes on from there."""

import json

import pytest

from benchmarks.results import Measurement, Results


def measurement(subject="ours", size=1600, number=1, **figures):
    return Measurement(
        case="pipeline",
        subject=subject,
        size=size,
        round=number,
        figures=figures,
        at="2026-11-22T19:00:00+00:00",
        load=0.5,
    )


@pytest.fixture
def results(tmp_path):
    return Results.load(tmp_path / "deep" / "results.jsonl")


def test_what_was_measured_is_read_back(results):
    results.begin({"cpu": "8086"})
    results.add(measurement(seconds=1.5, precision="f32"))
    results.add(measurement(size=4000, seconds=2.5))
    again = Results.load(results.file)
    assert again.sessions == [{"cpu": "8086"}]
    assert again.measurements == results.measurements
    assert ("pipeline", "ours", 4000, 1) in again
    assert ("pipeline", "ours", 4000, 2) not in again


def test_a_measurement_is_on_disk_at_once(results):
    results.add(measurement(seconds=1.5))
    assert json.loads(results.file.read_text())["figures"] == {"seconds": 1.5}


def test_a_line_that_was_cut_off_is_dropped_and_the_file_goes_on(results):
    results.add(measurement(seconds=1.5))
    with results.file.open("a") as out:
        out.write('{"case": "pipel')
    again = Results.load(results.file)
    assert again.measurements == results.measurements
    again.add(measurement(number=2, seconds=1.75))
    assert Results.load(results.file).series("pipeline", "ours", 1600, "seconds") == {
        1: 1.5,
        2: 1.75,
    }


def test_damage_within_the_file_is_not_passed_over(results):
    results.add(measurement(seconds=1.5))
    good = results.file.read_text()
    results.file.write_text("{\n" + good)
    with pytest.raises(ValueError, match="Expecting"):
        Results.load(results.file)


def test_a_series_has_the_rounds_that_have_the_figure(results):
    results.add(measurement(number=1, seconds=1.5))
    results.add(measurement(number=2, other=2.5))
    results.add(measurement(number=3, seconds=3.5))
    results.add(measurement(number=3, subject="theirs", seconds=9.0))
    assert results.series("pipeline", "ours", 1600, "seconds") == {1: 1.5, 3: 3.5}


def test_sizes_and_subjects_are_those_measured(results):
    results.add(measurement(size=4000))
    results.add(measurement(size=1600))
    results.add(measurement(subject="theirs", size=20))
    assert results.sizes("pipeline") == [20, 1600, 4000]
    assert results.sizes("pipeline", "ours") == [1600, 4000]
    assert results.subjects("pipeline") == ["ours", "theirs"]
    assert results.by_size("pipeline", "ours", "seconds") == {1600: {}, 4000: {}}


def test_the_latest_figure_is_the_newest_round_s(results):
    results.add(measurement(precision="f32"))
    results.add(measurement(size=4000, number=2, precision="bf16"))
    assert results.latest("pipeline", "ours", "precision") == "bf16"
    assert results.latest("pipeline", "ours", "precision", size=1600) == "f32"
    assert results.latest("pipeline", "theirs", "precision") is None
