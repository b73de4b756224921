# SPDX-License-Identifier: Apache-2.0
"""Subjects as the unit: their means, and the interval of a mean over them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from statistics import fmean, stdev

from scipy import stats

__all__ = ["LEVEL", "t_interval", "subject_means"]

LEVEL = 0.05
"""Of all tests; intervals hold 1 minus it."""


def subject_means(values: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Average what belongs to one subject, such as its cases.

    Args:
        values: Subject and value.

    Returns:
        The mean of each subject's values that are not NaN; a subject without any is left out.

    Example:
        >>> subject_means([("a", 0.5), ("b", float("nan")), ("a", 1.0)])
        {'a': 0.75}
    """
    by_subject: dict[str, list[float]] = defaultdict(list)
    for subject, value in values:
        if not math.isnan(value):
            by_subject[subject].append(value)
    return {subject: fmean(of_one) for subject, of_one in by_subject.items()}


def t_interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % interval of a mean, by Student's t with n - 1 degrees of freedom; NaN for fewer than 2 values.

    Example:
        >>> [round(end, 2) for end in t_interval([0.9, 0.7])]
        [-0.47, 2.07]
    """
    if len(values) < 2:
        return math.nan, math.nan
    half = float(stats.t.ppf(1 - LEVEL / 2, len(values) - 1)) * (stdev(values) / math.sqrt(len(values)))
    return fmean(values) - half, fmean(values) + half
