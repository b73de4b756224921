# SPDX-License-Identifier: Apache-2.0
"""The Gaussian ramp against its formula."""

from __future__ import annotations

import itertools
import math

import pytest

from metassl_monai.methods import GaussianRamp


@pytest.mark.parametrize("maximum", [0.1, 1.0])
@pytest.mark.parametrize("step", [0, 1, 123, 599, 600])
def test_ramp_follows_the_formula(step: int, maximum: float) -> None:
    expected = maximum * math.exp(-5 * (1 - step / 600) ** 2)
    assert GaussianRamp(600, maximum)(step) == pytest.approx(expected, rel=1e-12)


def test_ramp_starts_at_exp_of_minus_five_and_grows_to_the_papers_maximum() -> None:
    ramp = GaussianRamp(100)
    values = [ramp(step) for step in range(101)]
    assert values[0] == pytest.approx(0.1 * 0.006737946999)
    assert values[-1] == 0.1
    assert all(low < high for low, high in itertools.pairwise(values))


@pytest.mark.parametrize("step", [100, 101, 1_000_000])
def test_ramp_stays_at_its_maximum(step: int) -> None:
    assert GaussianRamp(100, 0.3)(step) == 0.3


@pytest.mark.parametrize("step", [0, 1, 999, 1000, 1001, 30_000])
def test_ramp_is_zero_before_its_start_and_as_without_one_after_it(step: int) -> None:
    expected = 0.0 if step < 1000 else GaussianRamp(30_000)(step)
    assert GaussianRamp(30_000, start=1000)(step) == expected


def test_negative_start_is_refused() -> None:
    with pytest.raises(ValueError, match="start=-1"):
        GaussianRamp(100, start=-1)


@pytest.mark.parametrize("iterations", [0, -5])
def test_ramp_without_iterations_is_refused(iterations: int) -> None:
    with pytest.raises(ValueError, match=f"iterations={iterations}"):
        GaussianRamp(iterations)
