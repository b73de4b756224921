# SPDX-License-Identifier: Apache-2.0
"""What the MetaSSL losses share: regions, their weights, and the normalizer."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.loss import _Loss

from metassl_monai.options import check_option

from .class_maps import histogram, look_up
from .functional import WEIGHT_FLOOR
from .normalization import NORMALIZERS, Normalization
from .region_accuracy import RegionAccuracyWeights
from .regions import Quadripartition, Region

__all__ = ["RegionWeightedLoss", "weight_map"]


class RegionWeightedLoss(_Loss):
    """Base of :class:`MetaSSLUnlabeledLoss` and :class:`MetaSSLLabeledLoss`, composed of built parts.

    Args:
        partition: parts the voxels into regions.
        region_weights: called without arguments, gives a weight a region, shape ``(4,)``;
            :class:`RegionAccuracyWeights` gives one a region and class.
        scale: factor on the loss.
        normalization: see :class:`MetaSSLUnlabeledLoss`.

    Raises:
        ValueError: when ``normalization`` is unknown.
    """

    def __init__(
        self, *, partition: Quadripartition, region_weights: nn.Module, scale: float, normalization: Normalization
    ) -> None:
        super().__init__()
        check_option("normalization", normalization, tuple(NORMALIZERS))
        self.partition = partition
        self.region_weights = region_weights
        self.scale = scale
        self.normalization = normalization
        self.normalizer = NORMALIZERS[normalization]
        self.regions: Tensor | None = None
        self.region_counts: Tensor | None = None
        self.foreground_counts: Tensor | None = None

    @torch.no_grad()
    def normalized_weights(self, regions: Tensor, label: Tensor, mask: Tensor | None, dtype: torch.dtype) -> Tensor:
        """Weight of every voxel, normalized so that weighted sums are the loss; 0 outside the mask."""
        cells = regions + (label != 0).to(regions.dtype) * len(Region)
        last = 2 * len(Region)  # one bin more holds what lies outside the mask
        counted = histogram(cells if mask is None else torch.where(mask != 0, cells, last), last + 1)
        background, foreground = counted[:last].to(dtype).view(2, -1)
        self.regions, self.region_counts, self.foreground_counts = regions, background + foreground, foreground
        weights = self.region_weights().to(dtype)
        if isinstance(self.region_weights, RegionAccuracyWeights):
            weight = weight_map(weights.flatten(), self.partition.num_classes * regions.long() + label, mask)
            return weight / weight.sum().clamp_min(WEIGHT_FLOOR)
        return weight_map(self.normalizer(weights, background, foreground), cells, mask)


def weight_map(table: Tensor, codes: Tensor, mask: Tensor | None) -> Tensor:
    """Look up the weight of every voxel; 0 outside the mask."""
    weight = look_up(table, codes.int())
    return weight if mask is None else torch.where(mask != 0, weight, 0)
