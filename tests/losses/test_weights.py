# SPDX-License-Identifier: Apache-2.0
"""Region weights: the verified numbers of the paper's weight functions, the orders, and errors."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from metassl_monai.losses import LABELED_ORDER, UNLABELED_ORDER, FixedWeights, Region, RegionWeights

UC, US, DC, DS = Region


def ranked(weights: RegionWeights, order=UNLABELED_ORDER) -> list[float]:
    """Weights from the first rank to the last."""
    return [weights()[region].item() for region in order]


@pytest.mark.parametrize(
    ("delta", "expected"),
    [
        (0.2, [1, 0.992032, 0.938005, 0.805735]),
        (0.3, [1, 0.973361, 0.805735, 0.482391]),
        (0.5, [1, 0.882497, 0.367879, 0.034218]),
        (0.6, [1, 0.805735, 0.177639, 0.002932]),
    ],
)
def test_cubic_gaussian(delta, expected):
    assert ranked(RegionWeights(delta)) == pytest.approx(expected, abs=6e-7)


@pytest.mark.parametrize(
    ("phi", "beta", "delta", "expected"),
    [
        ("linear", 3, 0.3, [1, 0.85, 0.7, 0.55]),
        ("linear", 3, 0.6, [1, 0.7, 0.4, 0.1]),
        ("reciprocal", 3, 0.3, [1, 0.769, 0.625, 0.526]),
        ("reciprocal", 3, 0.6, [1, 0.625, 0.455, 0.357]),
        ("cosine", 3, 0.3, [1, 0.978, 0.913, 0.811]),
        ("cosine", 3, 0.6, [1, 0.913, 0.681, 0.386]),
        ("gaussian", 1, 0.3, [1, 0.741, 0.549, 0.407]),
        ("gaussian", 1, 0.6, [1, 0.549, 0.301, 0.165]),
        ("gaussian", 2, 0.3, [1, 0.914, 0.698, 0.445]),
        ("gaussian", 2, 0.6, [1, 0.698, 0.237, 0.039]),
    ],
)
def test_every_weight_function(phi, beta, delta, expected):
    assert ranked(RegionWeights(delta, beta, phi)) == pytest.approx(expected, abs=6e-4)


@pytest.mark.parametrize(("beta", "expected"), [(1, 0.1353), (2, 0.0183), (3, 3.355e-4)])
def test_gaussian_at_the_end_of_its_domain(beta, expected):
    assert ranked(RegionWeights(2.0, beta))[1] == pytest.approx(expected, rel=2e-3)


def test_linear_is_clamped_beyond_its_domain():
    assert ranked(RegionWeights(0.7, phi="linear")) == pytest.approx([1, 0.65, 0.3, 0], abs=1e-6)


def test_cosine_takes_radians():
    assert ranked(RegionWeights(1.0, phi="cosine"))[3] == pytest.approx((1 + math.cos(3)) / 2, abs=1e-6)


@pytest.mark.parametrize("phi", ["gaussian", "linear", "reciprocal", "cosine"])
def test_delta_zero_weighs_all_regions_alike(phi):
    assert ranked(RegionWeights(0, phi=phi)) == [1, 1, 1, 1]


@pytest.mark.parametrize("phi", ["gaussian", "linear", "reciprocal", "cosine"])
def test_weights_fall_with_the_rank(phi):
    weights = ranked(RegionWeights(0.5, phi=phi))
    assert all(heavy > light for heavy, light in itertools.pairwise(weights))


def test_orders_of_the_paper():
    assert UNLABELED_ORDER == (UC, US, DC, DS)
    assert LABELED_ORDER == (UC, US, DS, DC)


@pytest.mark.parametrize("order", list(itertools.permutations(Region)))
def test_any_order_of_the_regions(order):
    assert ranked(RegionWeights(0.5, order=order), order) == pytest.approx([1, 0.882497, 0.367879, 0.034218], abs=6e-7)


def test_labeled_order_puts_confident_contradiction_last():
    weights = RegionWeights(0.3, order=LABELED_ORDER)()
    assert weights[DS].item() == pytest.approx(0.805735, abs=6e-7)
    assert weights[DC].item() == pytest.approx(0.482391, abs=6e-7)


def test_weights_are_no_parameters_and_not_checkpointed():
    weights = RegionWeights(0.6)
    assert list(weights.parameters()) == []
    assert weights.state_dict() == {}
    assert weights().shape == (4,)
    assert not weights().requires_grad
    assert weights.to(torch.float64)().dtype == torch.float64  # a buffer: moves with the module


def test_fixed_weights_are_indexed_by_region():
    weights = FixedWeights((4, 3, 2, 1))
    assert [weights()[region].item() for region in (UC, US, DC, DS)] == [4, 3, 2, 1]
    assert weights.state_dict() == {}
    assert weights.to(torch.float64)().dtype == torch.float64


@pytest.mark.parametrize("weights", [(1, 1, 1), (1, 1, 1, 1, 1), (), (1, 1, -0.5, 1)])
def test_fixed_weights_are_four_and_none_negative(weights):
    with pytest.raises(ValueError, match="four weights, of UC, US, DC and DS, none negative"):
        FixedWeights(weights)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"delta": -0.1}, ["delta=-0.1", "negative"]),
        ({"delta": 0.6, "phi": "sigmoid"}, ["phi='sigmoid'", "gaussian", "linear", "reciprocal", "cosine"]),
        ({"delta": 0.6, "order": (UC, US, DC)}, ["order=", "UC, US, DC, DS"]),
        ({"delta": 0.6, "order": (UC, UC, DC, DS)}, ["order=", "UC, US, DC, DS"]),
    ],
)
def test_errors_name_the_option_and_the_choices(options, words):
    with pytest.raises(ValueError, match=words[0]) as error:
        RegionWeights(**options)
    assert all(word in str(error.value) for word in words)
