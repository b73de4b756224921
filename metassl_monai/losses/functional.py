# SPDX-License-Identifier: Apache-2.0
"""Voxel-wise cross-entropy and soft Dice on logits and class indices, without one-hot maps."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from .class_maps import class_sums, likeliest_class
from .precision import at_least_float

__all__ = [
    "cross_entropy_map",
    "hard_label",
    "log_mean_probabilities",
    "masked_mean",
    "normalized_entropy",
    "soft_dice",
    "sum_over_ranks",
]

# Small enough to vanish beside one voxel, large enough for float32 (SSL4MIS and MONAI use the same).
DICE_SMOOTH = 1e-5
WEIGHT_FLOOR = 1e-8


def cross_entropy_map(logits: Tensor, label: Tensor) -> Tensor:
    """``-log softmax(logits)[label]`` of every voxel.

    Args:
        logits: ``(B, C, *spatial)``.
        label: class indices, ``(B, 1, *spatial)``, any dtype.

    Returns:
        Cross-entropy in nats, ``(B, 1, *spatial)``, at least float32.
    """
    return F.cross_entropy(at_least_float(logits), label.squeeze(1).long(), reduction="none").unsqueeze(1)


def hard_label(logits: Tensor, label: Tensor | None) -> Tensor:
    """The given label, else the class with the largest logit."""
    return (likeliest_class(logits.detach()) if label is None else label).long()


def log_mean_probabilities(predictions: Sequence[Tensor]) -> Tensor:
    """Logits whose softmax is the mean of the probabilities of several predictions.

    Args:
        predictions: logits, each ``(B, C, *spatial)``.

    Returns:
        The logarithm of the mean, up to a constant, ``(B, C, *spatial)``.

    Example::

        >>> import torch
        >>> from metassl_monai.losses.functional import log_mean_probabilities
        >>> predictions = [torch.tensor([[[p], [1 - p]]]).log() for p in (0.2, 0.4)]
        >>> round(log_mean_probabilities(predictions).softmax(dim=1)[0, 0].item(), 4)
        0.3
    """
    return torch.stack([logits.log_softmax(dim=1) for logits in predictions]).logsumexp(dim=0)


def masked_mean(values: Tensor, mask: Tensor | None) -> Tensor:
    """Mean of ``values`` where ``mask`` is non-zero; 0 where it is zero everywhere."""
    if mask is None:
        return values.mean()
    inside = mask != 0
    return torch.where(inside, values, 0).sum() / inside.sum().clamp_min(1)


def mean_weight(like: Tensor, mask: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Weight of every voxel in a mean where ``mask`` is non-zero: weighted sums are :func:`masked_mean`."""
    if mask is None:
        return torch.full((1,) * like.ndim, 1 / like.numel(), dtype=dtype, device=like.device).expand(like.shape)
    inside = (mask != 0).to(dtype)
    return inside / inside.sum().clamp_min(1)


def normalized_entropy(logits: Tensor) -> Tensor:
    """``-sum_c p_c ln p_c / ln C``: 0 where one class has all probability, 1 where all are alike.

    The division makes limits that papers state for two classes, in parts of the largest entropy ln 2, hold for any
    number of classes.

    Args:
        logits: ``(B, C, *spatial)``, with ``C > 1``. Carries gradient.

    Returns:
        ``(B, 1, *spatial)``, at least float32.

    Example::

        >>> import torch
        >>> from metassl_monai.losses.functional import normalized_entropy
        >>> normalized_entropy(torch.zeros(1, 4, 1, 1)).item()
        1.0
    """
    log_p = at_least_float(logits).log_softmax(dim=1)
    return -(log_p.exp() * log_p).sum(dim=1, keepdim=True) / math.log(logits.shape[1])


def soft_dice(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    squared: bool = False,
    include_background: bool = True,
) -> Tensor:
    """Soft Dice loss over the whole batch, mean over the classes, by default background included (MetaSSL, Eq. 8).

    ``1 - mean_c (2 sum W y p + eps) / (sum W (y + p) + eps)`` with ``p = softmax(logits)`` and ``y`` the target.

    Args:
        logits: ``(B, C, *spatial)``.
        target: class indices, ``(B, 1, *spatial)``, any dtype.
        weight: weight ``W`` of each voxel, ``(B, 1, *spatial)``; 1 everywhere when None.
        squared: square ``p`` in the denominator, as the backbones' own Dice does.
        include_background: count class 0 in the mean.

    Returns:
        A scalar in [0, 1].
    """
    p = at_least_float(logits).softmax(dim=1)
    target = target.long()
    weight = p.new_ones(1).expand_as(target) if weight is None else weight.to(p.dtype)
    hit = p.gather(1, target) * weight
    voxels = [0, *range(2, p.ndim)]
    denominator_p = ((p.square() if squared else p) * weight).sum(dim=voxels)
    intersection, size = class_sums(hit, target, p.shape[1]), class_sums(weight, target, p.shape[1])
    dice = (2 * intersection + DICE_SMOOTH) / (size + denominator_p + DICE_SMOOTH)
    return 1 - (dice if include_background else dice[1:]).mean()


def sum_over_ranks(statistics: Tensor) -> Tensor:
    """Sum over all processes of a distributed run, so that all hold the same state; in place."""
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(statistics)
    return statistics
