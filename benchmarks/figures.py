"""The arithmetic of the table: figures of rounds, marginal rates, ratios inside a round."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Series", "combined", "marginal", "ratio", "shown"]

Series: TypeAlias = dict[int, float]
"""One figure: round -> value. What is compared is compared inside a round."""


def combined(formula: Callable[..., float], *series: Mapping[int, float]) -> Series:
    """Apply a formula to the values of each round in which all of the figures were measured.

    A round whose values have no result (a division by zero) is left out.
    """
    result = {}
    for number in sorted(set.intersection(*map(set, series))):
        try:
            result[number] = formula(*(values[number] for values in series))
        except ZeroDivisionError:
            continue
    return result


def ratio(numerator: Mapping[int, float], denominator: Mapping[int, float]) -> Series:
    """Divide two figures round by round."""
    return combined(lambda a, b: a / b, numerator, denominator)


def marginal(cost: Mapping[int, Mapping[int, float]]) -> Series:
    """Return what one more image costs, from runs of a few and of many images.

    Parameters
    ----------
    cost
        Number of images -> cost of a run, in seconds or CPU seconds. The smallest and the largest
        number are taken; with one number, there is no figure.

    Returns
    -------
    Series
        Cost an image. Of two runs in one round the fixed cost is taken out: the difference of the
        costs over the difference of the images. Rounds in which noise ate the difference are left
        out.
    """
    few, many = min(cost, default=0), max(cost, default=0)
    if few == many:
        return {}
    differences = combined(lambda a, b: (b - a) / (many - few), cost[few], cost[many])
    return {number: value for number, value in differences.items() if value > 0}


def shown(series: Mapping[int, float], *, digits: int = 1) -> str:
    """Write a figure as its median with minimum and maximum over the rounds."""
    if not series:
        return "-"
    middle, low, high = median(series.values()), min(series.values()), max(series.values())
    if len(series) == 1:
        return f"{middle:,.{digits}f}"
    return f"{middle:,.{digits}f} ({low:,.{digits}f} to {high:,.{digits}f})"
