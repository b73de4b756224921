# SPDX-License-Identifier: Apache-2.0
"""Voxel-wise terms that correct a prediction where two networks disagree (MCF, SDCL)."""

from __future__ import annotations

from math import log

import torch
from torch import Tensor

from .precision import at_least_float

__all__ = ["label_distance", "uniform_divergence"]


def label_distance(logits: Tensor, label: Tensor) -> Tensor:
    """Squared difference of the probabilities from a hard label, mean over the classes.

    Args:
        logits: ``(B, C, *spatial)``.
        label: class indices, ``(B, 1, *spatial)``, any dtype.

    Returns:
        Values in [0, 2 / C], ``(B, 1, *spatial)``, at least float32.

    Example::

        >>> import torch
        >>> from metassl_monai.losses.correction import label_distance
        >>> label_distance(torch.zeros(1, 2, 1), torch.zeros(1, 1, 1)).item()
        0.25
    """
    p, index = at_least_float(logits).softmax(dim=1), label.long()
    return p.scatter_add(1, index, -torch.ones_like(index, dtype=p.dtype)).square().mean(dim=1, keepdim=True)


def uniform_divergence(logits: Tensor) -> Tensor:
    """``KL(uniform || softmax(logits))`` in nats, not negative, ``(B, 1, *spatial)``, at least float32.

    Example::

        >>> import torch
        >>> from metassl_monai.losses.correction import uniform_divergence
        >>> round(uniform_divergence(torch.tensor([0.9, 0.1]).log().view(1, 2, 1)).item(), 3)
        0.511
    """
    return -at_least_float(logits).log_softmax(dim=1).mean(dim=1, keepdim=True) - log(logits.shape[1])
