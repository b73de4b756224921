# SPDX-License-Identifier: Apache-2.0
"""Confidence intervals of a mean that stay where the metric can be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev

from scipy import special, stats

__all__ = ["FRACTIONS", "mean_interval"]

FRACTIONS = frozenset({"dice", "jaccard"})
"""Metrics from 0 to 1; all others are distances, which are at least 0."""

_LEVEL = 0.95


def mean_interval(values: Sequence[float], fraction: bool) -> tuple[float, float]:
    """Return the 95 % interval of a mean by Student's t on the scale where it has no bounds (delta method).

    That scale is the logit of a fraction and the logarithm of a distance. Where the interval is narrow, it is the plain
    t-interval; near an end of the range it is skewed and does not cross it. A bootstrap stays inside, too, but is too
    narrow for the few subjects of most validations.

    Args:
        values: one for each independent unit, such as a subject.
        fraction: whether the metric goes from 0 to 1; else from 0 upward.

    Returns:
        Its ends; NaN with fewer than 2 values, and both the mean where all values are alike.

    Example:
        >>> "[%.2f, %.2f]" % mean_interval([0.9, 0.8, 0.95], fraction=True)
        '[0.55, 0.98]'
    """
    if len(values) < 2:
        return math.nan, math.nan
    mean, error = fmean(values), stdev(values) / math.sqrt(len(values))
    if error == 0:
        return mean, mean
    steps = float(stats.t.ppf((1 + _LEVEL) / 2, len(values) - 1))
    if not fraction:
        factor = math.exp(min(steps * error / mean, 700.0))  # beyond that it would be no float
        return mean / factor, mean * factor
    half = steps * error / (mean * (1 - mean))
    center = special.logit(mean)
    return float(special.expit(center - half)), float(special.expit(center + half))
