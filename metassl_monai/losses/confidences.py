# SPDX-License-Identifier: Apache-2.0
"""How sure a reference is of its label: four measures, each 1 for a one-hot prediction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from .precision import at_least_float

__all__ = [
    "CONFIDENCES",
    "Confidence",
    "confidence",
    "label_probability",
    "mean_absolute_deviation",
    "standard_deviation",
    "variance",
]

Confidence: TypeAlias = Literal["probability", "mad", "variance", "std"]


@torch.no_grad()
def confidence(logits: Tensor) -> Tensor:
    """Largest probability of each voxel, ``(B, 1, *spatial)``, without gradient."""
    return at_least_float(logits).softmax(dim=1).amax(dim=1, keepdim=True)


def label_probability(logits: Tensor, label: Tensor | None) -> Tensor:
    """Probability of ``label``: ``softmax(logits)[label]``.

    Args:
        logits: ``(B, C, *spatial)``.
        label: class indices, ``(B, 1, *spatial)``; None for the likeliest class, which is found in a third of the time.

    Returns:
        Probabilities in [0, 1], ``(B, 1, *spatial)``.
    """
    p = at_least_float(logits).softmax(dim=1)
    return p.amax(dim=1, keepdim=True) if label is None else p.gather(1, label)


def variance(logits: Tensor, label: Tensor | None) -> Tensor:
    """Variance of the probabilities over the classes, scaled to [0, 1] (MetaSSL, Table VII). ``label`` is not used."""
    p = at_least_float(logits).softmax(dim=1)
    classes = p.shape[1]
    return (p - 1 / classes).square().sum(dim=1, keepdim=True) * (classes / (classes - 1))


def standard_deviation(logits: Tensor, label: Tensor | None) -> Tensor:
    """Square root of :func:`variance`, in [0, 1] (MetaSSL, Table VII)."""
    return variance(logits, label).sqrt()


def mean_absolute_deviation(logits: Tensor, label: Tensor | None) -> Tensor:
    """Mean absolute deviation over the classes, scaled to [0, 1] (MetaSSL, Table VII). ``label`` is not used."""
    p = at_least_float(logits).softmax(dim=1)
    classes = p.shape[1]
    return (p - 1 / classes).abs().sum(dim=1, keepdim=True) * (classes / (2 * (classes - 1)))


CONFIDENCES: dict[Confidence, Callable[[Tensor, Tensor | None], Tensor]] = {
    "probability": label_probability,
    "mad": mean_absolute_deviation,
    "variance": variance,
    "std": standard_deviation,
}
