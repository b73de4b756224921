# SPDX-License-Identifier: Apache-2.0
"""The backbones' own losses in loops over voxels: R-Drop's, FixMatch's and BCP's."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from metassl_monai.losses import KLDivergenceLoss, PseudoLabelDiceLoss, PseudoLabelLoss


def batch(seed: int, classes: int = 4, spread: float = 2.0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Two predictions, a label for the second, a mask; float64."""
    random = torch.Generator().manual_seed(seed)
    input, reference = (spread * torch.randn(2, classes, 3, 5, generator=random, dtype=torch.float64) for _ in range(2))
    label = torch.randint(0, classes, (2, 1, 3, 5), generator=random)
    return input, reference, label, torch.rand(2, 1, 3, 5, generator=random) < 0.6


def probabilities(logits: Tensor) -> list[list[float]]:
    rows = [[math.exp(v) for v in row] for row in logits.movedim(1, -1).flatten(0, -2).tolist()]
    return [[v / sum(row) for v in row] for row in rows]


def members(mask: Tensor | None, count: int) -> list[int]:
    return [x for x in range(count) if mask is None or mask.flatten()[x]]


# ---- R-Drop ---------------------------------------------------------------------------------------------------------


def slow_divergence(input: Tensor, reference: Tensor, mask: Tensor | None) -> float:
    p, q = probabilities(input), probabilities(reference)
    inside = members(mask, len(p))
    total = 0.0
    for x in inside:
        for a, b in zip(p[x], q[x], strict=True):
            total += a * math.log(a / b)
    return total / len(inside)


@pytest.mark.parametrize("scale", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("masked", [False, True])
def test_divergence_equals_the_loop(masked, scale):
    for seed in range(3):
        input, reference, label, mask = batch(seed)
        mask = mask if masked else None
        expected = scale * slow_divergence(input, reference, mask)
        assert KLDivergenceLoss(scale)(input, reference, mask=mask).item() == pytest.approx(expected, rel=1e-12)
        assert KLDivergenceLoss(scale)(input, reference, label, mask).item() == pytest.approx(expected, rel=1e-12)


def test_half_of_the_divergence_is_the_default_so_that_two_directions_make_the_mean():
    input, reference, _, _ = batch(0)
    loss = KLDivergenceLoss()
    both = loss(input, reference) + loss(reference, input)
    expected = 0.5 * (slow_divergence(input, reference, None) + slow_divergence(reference, input, None))
    assert both.item() == pytest.approx(expected, rel=1e-12)


def test_divergence_of_equals_is_zero_and_of_others_is_not():
    input, reference, _, _ = batch(1)
    shifted = input + reference[:, :1]  # the same number on all logits of a voxel: the same probabilities
    assert KLDivergenceLoss()(input, input).item() == 0
    assert abs(KLDivergenceLoss()(input, shifted).item()) < 1e-12
    assert KLDivergenceLoss()(input, reference) > 0.1


@pytest.mark.parametrize("masked", [False, True])
def test_divergence_has_a_gradient_to_both_predictions(masked):
    """With p and q the probabilities: d/dz_q = q - p and d/dz_p = p (log(p / q) - KL), each over the voxels."""
    input, reference, _, mask = batch(2)
    mask = mask if masked else torch.ones_like(mask)
    first, second = input.clone().requires_grad_(), reference.clone().requires_grad_()
    KLDivergenceLoss(1.0)(first, second, mask=mask).backward()
    p, q = probabilities(input), probabilities(reference)
    gradients = [t.grad.movedim(1, -1).flatten(0, -2) for t in (first, second)]
    inside = members(mask, len(p))
    for x in range(len(p)):
        divergence = sum(a * math.log(a / b) for a, b in zip(p[x], q[x], strict=True))
        to_first = [a * (math.log(a / b) - divergence) for a, b in zip(p[x], q[x], strict=True)]
        to_second = [b - a for a, b in zip(p[x], q[x], strict=True)]
        for gradient, expected in zip(gradients, (to_first, to_second), strict=True):
            expected = [v / len(inside) * (x in inside) for v in expected]
            assert gradient[x].tolist() == pytest.approx(expected, abs=1e-12)


def test_divergence_gradcheck_in_both_arguments():
    input, reference, _, mask = (t[:, :, :2, :2] for t in batch(3))
    pair = (input.clone().requires_grad_(), reference.clone().requires_grad_())
    assert torch.autograd.gradcheck(lambda p, q: KLDivergenceLoss()(p, q, mask=mask), pair)


# ---- FixMatch -------------------------------------------------------------------------------------------------------


def slow_pseudo_label(
    input: Tensor, reference: Tensor, label: Tensor | None, mask: Tensor | None, threshold: float
) -> tuple[float, int]:
    """The loss, and how many voxels inside count in it."""
    p, q = probabilities(input), probabilities(reference)
    total, counted = 0.0, 0
    inside = members(mask, len(p))
    for x in inside:
        y = q[x].index(max(q[x])) if label is None else int(label.flatten()[x])
        if q[x][y] >= threshold:
            total -= math.log(p[x][y])
            counted += 1
    return total / len(inside), counted


@pytest.mark.parametrize("threshold", [0.0, 0.6, 0.95])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("labeled", [False, True])
def test_unsure_voxels_count_as_zero_in_the_mean_over_all(labeled, masked, threshold):
    partly = False
    for seed in range(4):
        input, reference, label, mask = batch(seed, spread=3.0)
        label, mask = label if labeled else None, mask if masked else None
        expected, counted = slow_pseudo_label(input, reference, label, mask, threshold)
        actual = PseudoLabelLoss(threshold)(input, reference, label, mask)
        assert actual.item() == pytest.approx(expected, rel=1e-12)
        partly |= 0 < counted < 30
    assert partly or threshold == 0


def test_numbers_of_fixmatch_by_hand():
    """Confidences .96, .94, .5 and .97: two of four voxels count, and the mean is over four."""
    sure = torch.tensor([0.96, 0.94, 0.5, 0.97], dtype=torch.float64)
    reference = torch.stack([sure, 1 - sure]).log()[None]
    input = torch.zeros(1, 2, 4, dtype=torch.float64, requires_grad=True)
    value = PseudoLabelLoss(threshold=0.95)(input, reference)
    value.backward()
    assert value.item() == pytest.approx(2 * math.log(2) / 4)
    assert (input.grad != 0).any(dim=1).flatten().tolist() == [True, False, False, True]


@pytest.mark.parametrize(("classes", "threshold"), [(2, 0.5), (4, 0.25), (8, 0.125)])
def test_a_confidence_of_exactly_the_threshold_counts(classes, threshold):
    input, reference, _, _ = batch(0, classes)
    uniform = torch.zeros_like(reference)  # every probability is exactly the threshold
    expected = PseudoLabelLoss()(input, uniform)
    assert PseudoLabelLoss(threshold)(input, uniform) == expected > 0
    assert PseudoLabelLoss(threshold + 1e-6)(input, uniform) == 0


@pytest.mark.parametrize("threshold", [-0.1, 1.5])
def test_a_threshold_that_is_no_confidence_is_named(threshold):
    with pytest.raises(ValueError, match=f"threshold={threshold}"):
        PseudoLabelLoss(threshold)


# ---- BCP ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("labeled", [False, True])
def test_pseudo_label_dice_equals_the_loop(labeled, masked):
    for seed in range(3):
        input, reference, label, mask = batch(seed)
        label, mask = label if labeled else None, mask if masked else None
        p, q = probabilities(input), probabilities(reference)
        inside = members(mask, len(p))
        y = [v.index(max(v)) for v in q] if label is None else label.flatten().tolist()
        entropy = -sum(math.log(p[x][y[x]]) for x in inside) / len(inside)
        dice = 0.0
        for c in range(4):
            above = 2 * sum(p[x][c] for x in inside if y[x] == c)
            below = sum(p[x][c] ** 2 for x in inside) + sum(1 for x in inside if y[x] == c)
            dice += (1 - (above + 1e-5) / (below + 1e-5)) / 4
        actual = PseudoLabelDiceLoss()(input, reference, label, mask)
        assert actual.item() == pytest.approx(0.5 * entropy + 0.5 * dice, rel=1e-12)
