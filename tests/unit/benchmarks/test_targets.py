"""A target holds or does not by the median of the rounds, each a ratio of its own."""

import pytest

from benchmarks.cases import (
    engine,
    large_image,
    pca,
    pipeline,
    quality,
    reading,
    sparkdl,
    worker_memory,
)
from benchmarks.results import Measurement, Results
from benchmarks.targets import Target, target_table, targets


@pytest.fixture
def results(tmp_path):
    return Results(tmp_path / "results.jsonl", sessions=[{"cpu_features": []}])


def add(results, case, subject, size, *rounds, **same):
    for number, figures in enumerate(rounds, start=1):
        results.measurements.append(
            Measurement(
                case=case.CASE.name,
                subject=subject,
                size=size,
                round=number,
                figures=figures | same,
                at="",
                load=0,
            )
        )


def found(results, words):
    fitting = [each for each in targets(results) if all(word in each.what for word in words)]
    assert len(fitting) == 1, [each.what for each in fitting]
    return fitting[0]


@pytest.mark.parametrize(
    ("measured", "verdict"),
    [
        ({1: 3.1, 2: 2.9, 3: 3.0}, "holds (2 of 3 rounds)"),
        ({1: 3.1, 2: 2.9, 3: 2.99}, "DOES NOT HOLD (1 of 3 rounds)"),
        ({}, "not measured"),
    ],
)
def test_the_median_decides_and_the_rounds_are_told(measured, verdict):
    assert Target(what="speed", measured=measured, at_least=3).verdict == verdict


def test_an_upper_bound_is_kept_from_below():
    assert Target(what="time", measured={1: 8.0}, at_most=8).verdict == "holds (1 of 1 rounds)"
    assert "NOT" in Target(what="time", measured={1: 8.01}, at_most=8).verdict


def test_without_results_every_target_is_there_and_none_is_measured(results):
    rows = target_table(results).rows
    assert len(rows) == 19
    assert {row[3] for row in rows} == {"not measured"}


def test_ours_is_compared_with_the_notebook_in_marginal_rate_and_in_cold_total(results):
    add(results, pipeline, pipeline.OURS_RESNET50, 1600, {"seconds": 60.0}, {"seconds": 70.0})
    add(results, pipeline, pipeline.OURS_RESNET50, 4000, {"seconds": 140.0}, {"seconds": 150.0})
    add(results, pipeline, pipeline.NOTEBOOK, 1600, {"seconds": 150.0}, {"seconds": 210.0})
    add(results, pipeline, pipeline.NOTEBOOK, 4000, {"seconds": 350.0}, {"seconds": 450.0})
    add(results, pipeline, pipeline.DAFT, 1600, {"seconds": 90.0}, {"seconds": 140.0})
    rate = found(results, ["ResNet50", "marginal rate", "notebook"])
    assert rate.measured == pytest.approx({1: 2.5, 2: 3.0})
    assert rate.at_least == 3
    total = found(results, ["cold total at 1,600", "notebook"])
    assert total.measured == pytest.approx({1: 2.5, 2: 3.0})
    assert found(results, ["Daft"]).measured == pytest.approx({1: 1.5, 2: 2.0})


def test_sparkdl_is_compared_with_our_run_and_with_row_by_row_in_marginal_rate(results):
    for case, subject, seconds in (
        (pipeline, pipeline.OURS_RESNET50, 95.0),
        (pipeline, pipeline.ROW_BY_ROW, 400.0),
        (sparkdl, sparkdl.FILES_RESNET50, 100.0),
        (sparkdl, sparkdl.STRUCTS_RESNET50, 50.0),
    ):
        add(results, case, subject, 1600, {"seconds": 10.0})
        add(results, case, subject, 4000, {"seconds": 10.0 + seconds})
    files = found(results, ["on files, ResNet50"])
    assert (files.measured, files.at_least) == (pytest.approx({1: 0.95}), 0.9)
    structs = found(results, ["on structs, ResNet50"])
    assert (structs.measured, structs.at_least) == (pytest.approx({1: 8.0}), 5)


def test_with_amx_more_is_asked_for(results):
    results.sessions[0]["cpu_features"].append("amx_bf16")
    assert found(results, ["ResNet50", "marginal rate", "notebook"]).at_least == 5


def test_the_limit_is_the_engine_in_the_precision_of_the_run(results):
    ours = pipeline.OURS_RESNET50
    add(results, pipeline, ours, 1600, {"seconds": 60.0}, precision="bf16")
    add(results, pipeline, ours, 4000, {"seconds": 140.0}, precision="bf16")  # 30 images/s
    add(results, engine, "ResNet50, 224, f32", 0, {"images_per_second": 16.0})
    add(results, engine, "ResNet50, 224, bf16", 0, {"images_per_second": 32.0})
    assert found(results, ["ResNet50", "engine"]).measured == pytest.approx({1: 30 / 32})


def test_fixed_cost_is_what_neither_spark_nor_the_images_take(results):
    ours = pipeline.OURS_EFFICIENTNET
    add(results, pipeline, ours, 1600, {"seconds": 22.0, "spark_seconds": 7.0})
    add(results, pipeline, ours, 4000, {"seconds": 34.0, "spark_seconds": 7.5})
    add(results, pipeline, ours, 20000, {"seconds": 114.0, "spark_seconds": 6.5})
    # 200 images/s: 8 of the 22 s are images.
    assert found(results, [ours, "fixed cost"]).measured == pytest.approx({1: 7.0})


def test_the_delay_s_price_is_the_share_of_the_rate_that_is_kept(results):
    from benchmarks.cases import latency

    for subject, many in (("ours, ResNet50, 0 ms", 140.0), ("ours, ResNet50, 30 ms", 160.0)):
        add(results, latency, subject, 1600, {"seconds": 60.0})
        add(results, latency, subject, 4000, {"seconds": many})
    assert found(results, ["ResNet50", "30 ms"]).measured == pytest.approx({1: 0.8})


def test_pca_is_judged_at_the_smaller_matrix(results):
    for rows, times in ((8000, 1.0), (50000, 100.0)):
        add(results, pca, pca.OURS, rows, {"seconds": 4.0})
        add(results, pca, pca.SPARK_ML, rows, {"seconds": 36.0 * times})
        add(results, pca, pca.LAPACK, rows, {"seconds": 3.2})
    assert found(results, ["PCA", "Spark ML"]).measured == {1: 9.0}
    assert found(results, ["PCA", "LAPACK"]).measured == {1: 1.25}


def test_the_other_cases_find_their_figures(results):
    add(results, reading, "ours, pixels (decodes, resizes)", 4000, {"images_per_second": 1500.0})
    add(results, reading, "Spark's image source (decodes)", 4000, {"images_per_second": 100.0})
    assert found(results, ["image source"]).measured == {1: 15.0}

    ours = "ours, EfficientNetLite0"
    add(results, worker_memory, ours, 2000, {"worker_peak_mib": 400.0})
    add(results, worker_memory, ours, 100000, {"worker_peak_mib": 500.0})
    assert found(results, ["ten times"]).measured == {}
    add(results, worker_memory, ours, 20000, {"worker_peak_mib": 420.0})
    assert found(results, ["ten times"]).measured == {1: 1.05}

    without = {"worker_peak_mib": 400.0, "features_seconds": 3.0}
    add(results, large_image, "small images alone", 500, without)
    with_it = {"worker_peak_mib": 510.0, "features_seconds": 3.25}
    add(results, large_image, "with one of 40 megapixels", 500, with_it)
    assert found(results, ["more peak memory"]).measured == {1: 110.0}
    assert found(results, ["more time"]).measured == {1: 0.25}


def test_the_fastest_precision_at_100_pixels_is_the_one_that_is_judged(results):
    for setting, many in (("224, int8", 30.0), ("100, f32", 60.0), ("100, int8", 40.0)):
        subject = f"EfficientNetLite0, {setting}: speed"
        add(results, quality, subject, 4000, {"features_seconds": 20.0})
        add(results, quality, subject, 20000, {"features_seconds": many})
    target = found(results, ["images/s"])
    assert "100, int8" in target.what
    assert target.measured == pytest.approx({1: 800.0})
