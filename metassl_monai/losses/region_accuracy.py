# SPDX-License-Identifier: Apache-2.0
"""Weights that nobody tunes: how often the reference was right in each region, measured where labels exist."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .functional import sum_over_ranks
from .regions import Region

__all__ = ["RegionAccuracyWeights"]


class RegionAccuracyWeights(nn.Module):
    """A weight per region and class: the running accuracy of the reference there, on labeled images.

    MetaSSL leaves tuning the weights of its regions to future work. The best weight of a pseudo-label is the
    probability that it is right, and labeled images show how often that is in each region.

    Right and all voxels are counted, and the old counts of a cell shrink by ``keep`` whenever it occurs in a batch:
    ``right = keep * right + right voxels``, ``total`` alike, ``accuracy = right / total``. A cell that is absent keeps
    both. All start with one voxel that is right, so a cell that labeled images never show weighs 1. That is so
    for every cell of a pair name that only the unlabeled stream has, and for DC and DS where a network judges itself on
    labeled images. Under ``torch.distributed`` the counts are summed over the ranks.

    Args:
        num_classes: number of classes ``C``, background included.
        keep: weight of the old counts, in [0, 1].

    Attributes:
        right: voxels where the reference's label is the annotation, shape ``(4, C)``, by region and that label.
        total: all voxels, same shape.

    Raises:
        ValueError: when ``keep`` lies outside [0, 1].

    Example::

        >>> import torch
        >>> from metassl_monai.losses import Region, RegionAccuracyWeights
        >>> accuracies = RegionAccuracyWeights(num_classes=2, keep=0.5)
        >>> regions, label = torch.tensor([0, 0, 3, 3]), torch.tensor([1, 1, 1, 1])
        >>> accuracies.update(regions, label, right=torch.tensor([True, True, True, False]))
        >>> accuracies()[Region.DS]  # 1.5 of 2.5
        tensor([1.0000, 0.6000])
    """

    right: Tensor
    total: Tensor

    def __init__(self, num_classes: int, keep: float = 0.99) -> None:
        super().__init__()
        if not 0 <= keep <= 1:
            raise ValueError(f"keep={keep} must lie between 0 and 1.")
        self.num_classes = num_classes
        self.keep = keep
        self.register_buffer("right", torch.ones(len(Region), num_classes, dtype=torch.float32))
        self.register_buffer("total", torch.ones(len(Region), num_classes, dtype=torch.float32))

    def forward(self) -> Tensor:
        """Return the accuracies, in [0, 1], shape ``(4, C)``, by :class:`Region` and the reference's label."""
        return self.right / self.total

    @torch.no_grad()
    def update(self, regions: Tensor, label: Tensor, right: Tensor, mask: Tensor | None = None) -> None:
        """Count the voxels of a batch of labeled images in training mode; in evaluation mode do nothing.

        Args:
            regions: :class:`Region` of every voxel, any shape.
            label: label of the reference, class indices, same shape.
            right: where that label is the annotation, same shape.
            mask: non-zero where a voxel counts, same shape.
        """
        if not self.training:
            return
        cells = 2 * (self.num_classes * regions.long() + label) + right
        inside = torch.ones_like(cells) if mask is None else (mask != 0).long()
        # integers, so that the sum on a GPU is the same in any order
        counts = cells.new_zeros(2 * self.total.numel()).scatter_add_(0, cells.flatten(), inside.flatten())
        counts = sum_over_ranks(counts).view(*self.total.shape, 2)
        total = counts.sum(dim=-1)
        for state, new in ((self.right, counts[..., 1]), (self.total, total)):
            state.copy_(torch.where(total > 0, self.keep * state, state) + new)
