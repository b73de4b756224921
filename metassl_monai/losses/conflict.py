# SPDX-License-Identifier: Apache-2.0
"""Pseudo-labels that count more where the prediction contradicts them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.modules.loss import _Loss

from .confidences import label_probability
from .functional import cross_entropy_map, hard_label, masked_mean
from .shapes import check_shapes

__all__ = ["ConflictPseudoLabelLoss"]


class ConflictPseudoLabelLoss(_Loss):
    """Mean cross-entropy against the reference's hard label, heavier where a sure reference contradicts: CCVC's loss.

    Wang et al., Conflict-Based Cross-View Consistency, CVPR 2023 (conflict-based pseudo-labeling). As in the authors'
    release the weights enter one mean over all voxels and are not normalized. Their code compares logits with the
    threshold; here it is the probability, as in the paper.

    Args:
        threshold: a reference is sure above this confidence. The authors give 0.9 for natural images, 0 for streets.
        weight: factor on the cross-entropy of conflicting voxels; that of all others is 1.

    Raises:
        ValueError: when ``threshold`` lies outside [0, 1] or ``weight`` is negative.

    Example::

        >>> import torch
        >>> from metassl_monai.losses import ConflictPseudoLabelLoss
        >>> sure = torch.tensor([9.0, -9.0]).view(1, 2, 1, 1)
        >>> round(ConflictPseudoLabelLoss(weight=2.0)(-sure, sure).item())
        36
    """

    def __init__(self, threshold: float = 0.9, weight: float = 2.0) -> None:
        super().__init__()
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold={threshold} is no confidence: choose one between 0 and 1.")
        if weight < 0:
            raise ValueError(f"weight={weight} is negative, so it would teach the contrary of the label.")
        self.threshold = threshold
        self.conflict_weight = weight

    def forward(
        self, input: Tensor, reference: Tensor, label: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Compute the loss; arguments and result as in :class:`MetaSSLUnlabeledLoss`."""
        check_shapes(input, reference=reference, label=label, mask=mask)
        label = hard_label(reference, label)
        sure = label_probability(reference.detach(), label) > self.threshold
        conflict = sure & (hard_label(input, None) != label)
        cross_entropy = cross_entropy_map(input, label)
        return masked_mean(torch.where(conflict, self.conflict_weight * cross_entropy, cross_entropy), mask)
