# SPDX-License-Identifier: Apache-2.0
"""Intervals stay in the range of their metric and are the usual ones where that is far away."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from metassl_monai.report.intervals import mean_interval


@pytest.mark.parametrize("values", [[0.0, 0.9], [1.0, 1.0, 0.2], [0.387, 0.1, 0.9, 0.0], [0.999, 0.998]])
def test_a_fraction_stays_between_0_and_1_around_its_mean(values: list[float]) -> None:
    low, high = mean_interval(values, fraction=True)
    assert 0 <= low < np.mean(values) < high <= 1


@pytest.mark.parametrize("values", [[0.0, 40.0], [18.0, 2.0, 35.0], [1e-9, 300.0, 0.0]])
def test_a_distance_stays_above_0_around_its_mean(values: list[float]) -> None:
    low, high = mean_interval(values, fraction=False)
    assert 0 <= low < np.mean(values) < high < math.inf


@pytest.mark.parametrize("fraction", [True, False])
def test_of_many_values_it_is_the_t_interval(fraction: bool) -> None:
    values = np.random.default_rng(0).uniform(0.4, 0.6, 400)
    plain = stats.t.interval(0.95, 399, loc=values.mean(), scale=stats.sem(values))
    assert mean_interval(values.tolist(), fraction) == pytest.approx(plain, abs=2e-4)


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_values_that_are_alike_are_their_own_interval(value: float) -> None:
    assert mean_interval([value] * 3, fraction=True) == (value, value)
    assert mean_interval([value] * 3, fraction=False) == (value, value)


def test_one_value_has_none() -> None:
    assert all(math.isnan(end) for end in mean_interval([0.5], fraction=True))


def test_it_covers_the_mean_of_skewed_fractions_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(1)
    samples = random.beta(6, 1.5, size=(2000, 8))
    hits = [low <= 0.8 <= high for low, high in (mean_interval(x.tolist(), True) for x in samples)]
    assert 0.92 < np.mean(hits) < 0.98
