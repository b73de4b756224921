# SPDX-License-Identifier: Apache-2.0
"""Cross-entropy and Dice with a gradient written by hand, against the plain forms and against finite differences."""

from __future__ import annotations

import pytest
import torch

from metassl_monai.losses.cross_entropy_dice import cross_entropy_and_dice, weighted_cross_entropy
from metassl_monai.losses.functional import cross_entropy_map, soft_dice

DICE = pytest.mark.parametrize(
    ("weighted", "squared", "background"),
    [(True, False, True), (True, True, True), (False, True, True), (False, False, False), (True, True, False)],
)


def sample(classes, spatial, dtype=torch.float64, layout=torch.contiguous_format):
    random = torch.Generator().manual_seed(1)
    shape = (2, 1, *spatial)
    logits = 2 * torch.randn(2, classes, *spatial, generator=random, dtype=torch.float64)
    target = torch.randint(0, classes, shape, generator=random)
    weight, dice_weight = (torch.rand(shape, generator=random, dtype=torch.float64) for _ in range(2))
    weight[0, :, 0] = dice_weight[0, :, 0] = 0
    logits = logits.to(dtype).contiguous(memory_format=layout).requires_grad_()
    return logits, target, weight.to(dtype), dice_weight.to(dtype)


def plain(logits, target, weight, dice_weight, squared, background):
    cross_entropy = (weight * cross_entropy_map(logits, target)).sum()
    return cross_entropy, soft_dice(logits, target, dice_weight, squared, background)


def gradients(form, logits, *rest):
    """Values, and the gradient of a combination of them."""
    values = form(logits, *rest)
    (gradient,) = torch.autograd.grad(0.3 * values[0] + 0.7 * values[1], logits)
    return [*(value.detach() for value in values), gradient]


@DICE
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-13)])
@pytest.mark.parametrize("classes", [2, 4, 9])
def test_values_and_gradient_are_those_of_the_plain_form(
    classes, dtype, tolerance, layout, weighted, squared, background
):
    logits, target, weight, dice_weight = sample(classes, (40, 30), dtype, layout)
    rest = target, weight, dice_weight if weighted else None, squared, background
    for found, expected in zip(
        gradients(cross_entropy_and_dice, logits, *rest), gradients(plain, logits, *rest), strict=True
    ):
        assert (found - expected).norm() <= tolerance * expected.norm()


@DICE
def test_gradient_is_that_of_finite_differences(weighted, squared, background):
    logits, target, weight, dice_weight = sample(3, (3, 2))
    rest = target, weight, dice_weight if weighted else None, squared, background
    assert torch.autograd.gradcheck(lambda x: cross_entropy_and_dice(x, *rest), logits)
    assert torch.autograd.gradcheck(lambda x: weighted_cross_entropy(x, target, weight), logits)


@pytest.mark.parametrize("classes", [2, 300])
def test_weighted_cross_entropy_alone_is_the_plain_one(classes):
    logits, target, weight, _ = sample(classes, (4, 3, 2))
    found = weighted_cross_entropy(logits, target, weight)
    expected = (weight * cross_entropy_map(logits, target)).sum()
    torch.testing.assert_close(found, expected)
    (one,), (other,) = (torch.autograd.grad(value, logits) for value in (found, expected))
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32_and_its_gradient_comes_back_in_half(dtype):
    logits, target, weight, dice_weight = sample(3, (8, 8), dtype)
    rest = target, weight.float(), dice_weight.float(), False, True
    for found, expected in zip(
        gradients(cross_entropy_and_dice, logits, *rest), gradients(plain, logits, *rest), strict=True
    ):
        assert found.dtype == expected.dtype
        torch.testing.assert_close(found, expected, rtol=2e-2, atol=1e-5)


def test_logits_as_large_as_they_get_stay_finite():
    logits = torch.tensor([[[1e4], [-1e4]]]).requires_grad_()
    target, weight = torch.ones(1, 1, 1, dtype=torch.long), torch.ones(1, 1, 1)
    values = gradients(cross_entropy_and_dice, logits, target, weight, weight)
    assert values[0] == 2e4
    assert all(value.isfinite().all() for value in values)


def test_a_second_derivative_is_refused():
    logits, target, weight, dice_weight = sample(3, (4, 4))
    loss = sum(cross_entropy_and_dice(logits, target, weight, dice_weight))
    with pytest.raises(RuntimeError, match="can be differentiated once"):
        torch.autograd.grad(loss, logits, create_graph=True)


def test_the_logits_are_kept_once_for_the_backward_pass():
    logits, target, weight, dice_weight = sample(4, (64, 64), torch.float32)
    kept = {}

    def note(x):
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        cross_entropy_and_dice(logits, target, weight, dice_weight)
    assert sum(kept.values()) < 1.6 * logits.nbytes
