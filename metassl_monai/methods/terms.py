# SPDX-License-Identifier: Apache-2.0
"""Loss terms that several methods have."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from metassl_monai.losses.precision import at_least_float

__all__ = ["conflict"]


def conflict(first: Tensor, second: Tensor) -> Tensor:
    """How alike two networks see the same images: ``2 + 2 cos``, from 0, opposite, to 4, alike (CML, Eq. 1).

    The cosine is taken over the channels and averaged over images and positions. In each of the two terms one network
    moves and the other holds still. Features that are nowhere negative, as after a ReLU, do not come below 2.

    Args:
        first: features of one network, ``(B, channels, *coarse)``.
        second: features of the other one, same shape.

    Raises:
        ValueError: when the shapes differ.

    Example::

        >>> import torch
        >>> from metassl_monai.methods.terms import conflict
        >>> x = torch.tensor([[3.0, 4.0]]).view(1, 2, 1, 1)
        >>> conflict(x, 2 * x), conflict(x, -x)
        (tensor(4.), tensor(0.))
    """
    if first.shape != second.shape:
        shapes = f"{tuple(first.shape)} and {tuple(second.shape)}"
        raise ValueError(f"the two encoders end in features of shapes {shapes}: make them alike, or conflict_weight=0.")
    return _opposition(first, second) + _opposition(second, first)


def _opposition(moving: Tensor, still: Tensor) -> Tensor:
    cosine = F.cosine_similarity(at_least_float(moving), at_least_float(still.detach()), dim=1, eps=1e-6)
    return 1 + cosine.mean()
