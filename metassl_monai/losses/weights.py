# SPDX-License-Identifier: Apache-2.0
"""The weight of each region: a decaying function of its rank (MetaSSL, Eq. 6)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from metassl_monai.options import check_option

from .regions import Mode, Region, kept_regions

__all__ = ["LABELED_ORDER", "UNLABELED_ORDER", "FixedWeights", "Phi", "RegionWeights", "chosen_weights"]

UNLABELED_ORDER = (Region.UC, Region.US, Region.DC, Region.DS)
# A reference that confidently contradicts an annotation hints at a wrong annotation, so DC comes last (Sec. III-C).
LABELED_ORDER = (Region.UC, Region.US, Region.DS, Region.DC)

Phi: TypeAlias = Literal["gaussian", "linear", "reciprocal", "cosine"]

_PHI: dict[Phi, Callable[[float, float], float]] = {
    "gaussian": lambda u, beta: math.exp(-(u**beta)),
    "linear": lambda u, beta: max(0.0, 1 - u / 2),
    "reciprocal": lambda u, beta: 1 / (1 + u),
    "cosine": lambda u, beta: 0.5 * math.cos(u) + 0.5,
}


class RegionWeights(nn.Module):
    """Four weights, ``phi(0), phi(delta), phi(2 delta), phi(3 delta)``, given to the regions in ``order``.

    Args:
        delta: step between two ranks; 0 weighs all regions alike.
        beta: exponent of the Gaussian ``exp(-u ** beta)``; the other functions have none.
        phi: ``"gaussian"`` (MetaSSL, Eq. 6), or ``"linear"`` ``1 - u / 2`` clamped at 0, ``"reciprocal"``
            ``1 / (1 + u)``, ``"cosine"`` ``(1 + cos u) / 2`` (Table VI).
        order: the regions from the heaviest to the lightest.

    Raises:
        ValueError: when ``phi`` is unknown, ``delta`` negative, or ``order`` no permutation of the four regions.

    Example::

        >>> from metassl_monai.losses import Region, RegionWeights
        >>> weights = RegionWeights(delta=0.6)()
        >>> [round(weights[region].item(), 4) for region in Region]
        [1.0, 0.8057, 0.1776, 0.0029]
    """

    weights: Tensor

    def __init__(
        self, delta: float, beta: float = 3.0, phi: Phi = "gaussian", order: Sequence[Region] = UNLABELED_ORDER
    ) -> None:
        super().__init__()
        check_option("phi", phi, sorted(_PHI))
        if delta < 0:
            raise ValueError(f"delta={delta} is negative: the weights must not grow with the rank.")
        if sorted(order) != list(Region):
            raise ValueError(f"order={order!r} must name each of UC, US, DC, DS once, heaviest first.")
        weights = torch.empty(len(Region), dtype=torch.float32)
        for rank, region in enumerate(order):
            weights[region] = _PHI[phi](rank * delta, beta)
        self.register_buffer("weights", weights, persistent=False)  # follows from the arguments: not checkpointed

    def forward(self) -> Tensor:
        """Return the weights, shape ``(4,)``, indexed by :class:`Region`."""
        return self.weights


class FixedWeights(nn.Module):
    """Four weights as they are given.

    Args:
        weights: weights of UC, US, DC and DS, none negative.

    Raises:
        ValueError: when there are not four weights, or one is negative.

    Example::

        >>> from metassl_monai.losses import FixedWeights, Region
        >>> FixedWeights([50, 40, 0.2048, 6.4])()[Region.DS]
        tensor(6.4000)
    """

    weights: Tensor

    def __init__(self, weights: Sequence[float]) -> None:
        super().__init__()
        if len(weights) != len(Region) or min(weights) < 0:
            raise ValueError(f"weights={weights!r}: give four weights, of UC, US, DC and DS, none negative.")
        self.register_buffer("weights", torch.tensor(weights, dtype=torch.float32), persistent=False)

    def forward(self) -> Tensor:
        """Return the weights, shape ``(4,)``, indexed by :class:`Region`."""
        return self.weights


def chosen_weights(
    mode: Mode, delta: float, beta: float, phi: Phi, order: Sequence[Region], weights: Sequence[float] | None
) -> RegionWeights | FixedWeights:
    """Return the given weights, else those of the weight function for a partition of this mode."""
    if weights is not None:
        return FixedWeights(weights)
    # a bisection weighs its two regions with phi(0) and phi(delta): what it never assigns ranks last
    kept = kept_regions(mode)
    return RegionWeights(delta, beta, phi, sorted(order, key=lambda region: region not in kept))
