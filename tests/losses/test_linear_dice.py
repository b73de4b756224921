# SPDX-License-Identifier: Apache-2.0
"""Cross-entropy with linear Dice against MONAI's, and what a mask takes away."""

from __future__ import annotations

import pytest
import torch
from monai.losses import DiceCELoss

from metassl_monai.losses import CrossEntropyLinearDiceLoss, PseudoLabelLinearDiceLoss


@pytest.mark.parametrize("spatial", [(6, 5), (4, 5, 3)])
@pytest.mark.parametrize("classes", [2, 4])
def test_equals_the_loss_of_monai(spatial, classes):
    torch.manual_seed(0)
    logits = torch.randn(3, classes, *spatial, dtype=torch.float64)
    target = torch.randint(0, classes, (3, 1, *spatial))
    target[0] = 0  # classes that a sample lacks
    expected = DiceCELoss(to_onehot_y=True, softmax=True, lambda_dice=0.5, lambda_ce=0.5)(logits, target)
    torch.testing.assert_close(CrossEntropyLinearDiceLoss()(logits, target.float()), expected, rtol=1e-6, atol=0)
    reference = torch.nn.functional.one_hot(target[:, 0], classes).movedim(-1, 1).double()
    torch.testing.assert_close(PseudoLabelLinearDiceLoss()(logits, reference), expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(
        PseudoLabelLinearDiceLoss()(logits, torch.zeros_like(logits), target), expected, rtol=1e-6, atol=0
    )


def test_voxels_outside_the_mask_do_not_count():
    torch.manual_seed(0)
    logits, target = torch.randn(2, 3, 4, 6), torch.randint(0, 3, (2, 1, 4, 6))
    mask = torch.zeros(2, 1, 4, 6)
    mask[..., :3] = 1
    expected = CrossEntropyLinearDiceLoss()(logits[..., :3], target[..., :3])
    torch.testing.assert_close(CrossEntropyLinearDiceLoss()(logits, target, mask=mask), expected)
    torch.testing.assert_close(PseudoLabelLinearDiceLoss()(logits, logits, target, mask), expected)


def test_half_precision_is_summed_in_float32():
    logits = torch.randn(2, 3, 4, 4)
    target = torch.randint(0, 3, (2, 1, 4, 4))
    loss = CrossEntropyLinearDiceLoss()(logits.bfloat16(), target)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, CrossEntropyLinearDiceLoss()(logits.bfloat16().float(), target))


def test_gradient_is_that_of_finite_differences():
    logits = torch.randn(2, 3, 3, 2, dtype=torch.float64, requires_grad=True)
    target = torch.randint(0, 3, (2, 1, 3, 2))
    assert torch.autograd.gradcheck(CrossEntropyLinearDiceLoss(), (logits, target))


@pytest.mark.parametrize("loss", [CrossEntropyLinearDiceLoss(), PseudoLabelLinearDiceLoss()])
def test_shapes_that_do_not_fit_are_refused(loss):
    with pytest.raises(ValueError, match="shape"):
        loss(torch.zeros(2, 3, 4, 4), torch.zeros(2, 1, 4, 5))
