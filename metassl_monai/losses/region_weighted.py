# SPDX-License-Identifier: Apache-2.0
"""What the two MetaSSL losses share: a partition, the weights of its regions, and how they are normalized."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.loss import _Loss

from .class_maps import histogram, look_up
from .functional import WEIGHT_FLOOR
from .region_accuracy import RegionAccuracyWeights
from .regions import Quadripartition, Region, kept_regions
from .thresholds import AdaptiveThreshold
from .weights import FixedWeights, RegionWeights

__all__ = ["RegionWeightedLoss", "weight_map"]

_NORMALIZATIONS = ("total", "region")
_UNANIMOUS = ("joint", "split", "released")


class RegionWeightedLoss(_Loss):
    """Base of :class:`MetaSSLUnlabeledLoss` and :class:`MetaSSLLabeledLoss`, which explain the arguments."""

    def __init__(
        self,
        num_classes: int,
        delta: float,
        beta: float,
        threshold: nn.Module | None,
        scale: float,
        normalization: str,
        phi: str,
        order: Sequence[Region],
        confidence: str,
        mode: str,
        weights: Sequence[float] | None,
        unanimous: str,
    ) -> None:
        super().__init__()
        if normalization not in _NORMALIZATIONS:
            raise ValueError(f"normalization={normalization!r} is unknown: choose one of {_NORMALIZATIONS}.")
        if unanimous not in _UNANIMOUS:
            raise ValueError(f"unanimous={unanimous!r} is unknown: choose one of {_UNANIMOUS}.")
        if unanimous != "joint" and normalization != "region":
            raise ValueError(f"unanimous={unanimous!r} averages parts of a region: it needs normalization='region'.")
        threshold = AdaptiveThreshold(num_classes) if threshold is None else threshold
        self.partition = Quadripartition(num_classes, threshold, confidence, mode)
        # a bisection weighs its two regions with phi(0) and phi(delta): what it never assigns ranks last
        kept = kept_regions(mode)
        order = sorted(order, key=lambda region: region not in kept)
        self.region_weights: nn.Module = (
            RegionWeights(delta, beta, phi, order) if weights is None else FixedWeights(weights)
        )
        self.scale = scale
        self.normalization = normalization
        self.unanimous = unanimous
        self.regions: Tensor | None = None
        self.region_counts: Tensor | None = None
        self.foreground_counts: Tensor | None = None

    @torch.no_grad()
    def normalized_weights(self, regions: Tensor, label: Tensor, mask: Tensor | None, dtype: torch.dtype) -> Tensor:
        """Weight of every voxel, normalized so that weighted sums are the loss; 0 outside the mask."""
        cells = regions + len(Region) * (label != 0)
        last = 2 * len(Region)  # one bin more holds what lies outside the mask
        counted = histogram(cells if mask is None else torch.where(mask != 0, cells, last), last + 1)
        background, foreground = counted[:last].to(dtype).view(2, -1)
        self.regions, self.region_counts, self.foreground_counts = regions, background + foreground, foreground
        if isinstance(self.region_weights, RegionAccuracyWeights):
            table = self.region_weights().to(dtype).flatten()
            weight = weight_map(table, self.partition.num_classes * regions.long() + label, mask)
            return weight / weight.sum().clamp_min(WEIGHT_FLOOR)
        return weight_map(self._normalized_table(background, foreground), cells, mask)

    def _normalized_table(self, background: Tensor, foreground: Tensor) -> Tensor:
        """Weight of one voxel by region, shape (8,): of those that the reference calls background, then the others."""
        weights, counts = self.region_weights().to(background.dtype), background + foreground
        if self.normalization == "total":
            return (weights / (weights * counts).sum().clamp_min(WEIGHT_FLOOR)).repeat(2)
        joint = weights / (counts + 1)
        if self.unanimous == "joint":
            return joint.repeat(2)
        unanimous = weights[0] / (torch.stack([background[0], foreground[0]]) + 1)
        if self.unanimous == "released":
            unanimous = unanimous * unanimous.new_tensor([2, 0])
        return torch.cat([unanimous[:1], joint[1:], unanimous[1:], joint[1:]])


def weight_map(table: Tensor, codes: Tensor, mask: Tensor | None) -> Tensor:
    """Look up the weight of every voxel; 0 outside the mask."""
    weight = look_up(table, codes.int())
    return weight if mask is None else torch.where(mask != 0, weight, 0)
