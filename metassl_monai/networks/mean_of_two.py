# SPDX-License-Identifier: Apache-2.0
"""Two networks that answer together."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["MeanOfTwo"]


class MeanOfTwo(nn.Module):
    """Logits whose softmax is the mean of the probabilities of two networks.

    The inference rule of methods that train two networks (cross-view mutual learning, dual networks). Wherever logits
    are expected it stands in for a single network: ``log((p_1 + p_2) / 2)``, from log-probabilities, so that no
    probability is lost to rounding.

    Args:
        first: maps images ``(B, channels, *spatial)`` to logits ``(B, C, *spatial)``.
        second: the same from other weights. The state dict holds both, as ``first.*`` and ``second.*``.

    Example::

        >>> import torch
        >>> from metassl_monai.networks import MeanOfTwo
        >>> first, second = torch.nn.Conv2d(1, 2, 1), torch.nn.Conv2d(1, 2, 1)
        >>> x = torch.rand(1, 1, 4, 4)
        >>> mean = (first(x).softmax(1) + second(x).softmax(1)) / 2
        >>> MeanOfTwo(first, second)(x).softmax(1).allclose(mean)
        True
    """

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first = first
        self.second = second

    def forward(self, x: Tensor) -> Tensor:
        """Map images to the logarithm of the mean probabilities, ``(B, C, *spatial)``."""
        first, second = self.first(x).log_softmax(dim=1), self.second(x).log_softmax(dim=1)
        return torch.logaddexp(first, second) - math.log(2)
