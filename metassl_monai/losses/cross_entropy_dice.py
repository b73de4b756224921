# SPDX-License-Identifier: Apache-2.0
"""Weighted cross-entropy and weighted soft Dice of the same logits, with a gradient written by hand.

Both need one softmax, and their gradients are that softmax times a number a voxel and class. Autograd would take the
softmax twice, keep both, and add up two gradients. The plain forms are :func:`cross_entropy_map` and :func:`soft_dice`,
which are used where this is compiled.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .class_maps import look_up
from .functional import DICE_SMOOTH, cross_entropy_map, soft_dice
from .precision import at_least_float

__all__ = ["cross_entropy_and_dice", "weighted_cross_entropy"]


def weighted_cross_entropy(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """``sum(weight * -log softmax(logits)[target])``.

    Args:
        logits: ``(B, C, *spatial)``.
        target: class indices, ``(B, 1, *spatial)``, any dtype.
        weight: of each voxel, ``(B, 1, *spatial)``; receives no gradient.

    Returns:
        A scalar, at least float32.

    Raises:
        RuntimeError: when its gradient is to be differentiated.
    """
    if torch.compiler.is_compiling():
        return (weight * cross_entropy_map(logits, target)).sum()
    fused: Any = _CrossEntropyDice
    loss: Tensor = fused.apply(at_least_float(logits), target.long(), weight, None, False, None)[0]
    return loss


def cross_entropy_and_dice(
    logits: Tensor,
    target: Tensor,
    weight: Tensor,
    dice_weight: Tensor | None,
    squared: bool = False,
    include_background: bool = True,
) -> tuple[Tensor, Tensor]:
    """:func:`weighted_cross_entropy` and ``soft_dice(logits, target, dice_weight, squared, include_background)``."""
    if torch.compiler.is_compiling():
        dice = soft_dice(logits, target, dice_weight, squared, include_background)
        return (weight * cross_entropy_map(logits, target)).sum(), dice
    inputs = at_least_float(logits), target.long(), weight, dice_weight
    fused: Any = _CrossEntropyDice
    parts: tuple[Tensor, Tensor] = fused.apply(*inputs, squared, include_background)
    return parts


class _CrossEntropyDice(torch.autograd.Function):
    """Without Dice where ``include_background`` is None."""

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        target: Tensor,
        weight: Tensor,
        dice_weight: Tensor | None,
        squared: bool,
        include_background: bool | None,
    ) -> tuple[Tensor, Tensor]:
        p = logits.log_softmax(dim=1)
        loss = -(p.gather(1, target) * weight).sum()
        p = p.exp_()
        dice, terms = torch.zeros_like(loss), list[Tensor]()
        if include_background is not None:
            dice, terms = _dice(p, target, dice_weight, squared, include_background)
        ctx.squared, ctx.with_dice = squared, include_background is not None
        few = p.shape[1] <= 255
        ctx.save_for_backward(p, target.to(torch.uint8) if few else target, weight, dice_weight, *terms)
        return loss, dice

    @staticmethod
    def backward(ctx: Any, loss_gradient: Tensor, dice_gradient: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # as under create_graph, which would take what follows for constants
            raise RuntimeError("cross-entropy and Dice can be differentiated once: leave out create_graph.")
        p, target, weight, dice_weight, *terms = ctx.saved_tensors
        target = target.long()
        everywhere, at_target = loss_gradient * weight, -loss_gradient * weight
        if ctx.with_dice:
            # d dice / d p is `slope` at the target plus `pull` (times 2p where it is squared) everywhere
            slope, pull = terms
            pull = (dice_gradient * pull).view(1, -1, *[1] * (p.ndim - 2))
            pull = p * (2 * pull) if ctx.squared else pull.expand_as(p)
            aimed = look_up(dice_gradient * slope, target).mul_(p.gather(1, target))
            # what softmax takes off every class: the mean of the derivatives over the classes, summed class by class
            # since their products would be as large as the logits
            mean = aimed.clone()
            for pulled, share in zip(pull.split(1, dim=1), p.split(1, dim=1), strict=True):
                mean.addcmul_(pulled, share)
            if dice_weight is None:
                gradient = pull + (everywhere - mean)
            else:
                aimed.mul_(dice_weight)
                gradient = torch.addcmul(torch.addcmul(everywhere, mean, dice_weight, value=-1), pull, dice_weight)
            gradient.mul_(p)
            at_target.add_(aimed)
        else:
            gradient = p * everywhere
        return gradient.scatter_add_(1, target, at_target), None, None, None, None, None


def _dice(
    p: Tensor, target: Tensor, weight: Tensor | None, squared: bool, include_background: bool
) -> tuple[Tensor, list[Tensor]]:
    """Soft Dice loss, and its derivatives by the hits and by the sizes of the classes."""
    voxels, classes = [0, *range(2, p.ndim)], p.shape[1]
    weight = p.new_ones(1).expand_as(target) if weight is None else weight
    own = torch.zeros_like(p).scatter_(1, target, weight)
    denominator = own.sum(dim=voxels) + ((p.square() if squared else p) * weight).sum(dim=voxels) + DICE_SMOOTH
    numerator = 2 * own.mul_(p).sum(dim=voxels) + DICE_SMOOTH
    counted = torch.ones_like(numerator)
    if not include_background:
        counted = counted * (torch.arange(classes, device=p.device) > 0)
    share = counted / (classes if include_background else classes - 1)
    dice = 1 - (share * numerator / denominator).sum()
    return dice, [-2 * share / denominator, share * numerator / denominator.square()]
