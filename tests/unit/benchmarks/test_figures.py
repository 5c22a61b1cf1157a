"""Figures are compared inside a round, and fixed costs are taken out of rates."""

import pytest

from benchmarks.figures import combined, marginal, ratio, shown


def test_a_ratio_is_taken_inside_each_round_that_has_both():
    assert ratio({1: 30.0, 2: 40.0, 3: 50.0}, {1: 10.0, 2: 20.0, 4: 1.0}) == {1: 3.0, 2: 2.0}


def test_a_round_without_a_result_is_left_out():
    assert combined(lambda a, b: a / b, {1: 1.0, 2: 1.0}, {1: 0.0, 2: 4.0}) == {2: 0.25}


def test_the_marginal_cost_has_no_fixed_cost_in_it():
    # 10 s fixed and 0.01 s an image; the second round is slower as a whole.
    seconds = {1600: {1: 26.0, 2: 42.0}, 4000: {1: 50.0, 2: 90.0}}
    assert marginal(seconds) == pytest.approx({1: 0.01, 2: 0.02})


def test_the_marginal_cost_is_that_between_the_smallest_and_the_largest_number():
    seconds = {4000: {1: 50.0}, 1600: {1: 26.0}, 20000: {1: 1866.0}}
    assert marginal(seconds) == pytest.approx({1: 0.1})


@pytest.mark.parametrize("seconds", [{}, {1600: {1: 26.0}}, {1600: {1: 26.0}, 4000: {2: 50.0}}])
def test_there_is_no_marginal_cost_without_two_numbers_in_one_round(seconds):
    assert marginal(seconds) == {}


def test_a_round_in_which_noise_ate_the_difference_has_no_marginal_cost():
    assert marginal({10: {1: 5.0, 2: 5.0}, 20: {1: 4.0, 2: 6.0}}) == {2: 0.1}


def test_a_figure_is_shown_as_median_with_minimum_and_maximum():
    assert shown({1: 3.0, 2: 1000.0, 3: 4.25}) == "4.2 (3.0 to 1,000.0)"
    assert shown({1: 3.0, 2: 4.0}, digits=2) == "3.50 (3.00 to 4.00)"
    assert shown({1: 1234.5}, digits=0) == "1,234"
    assert shown({}) == "-"
