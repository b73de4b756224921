# SPDX-License-Identifier: Apache-2.0
"""Pseudo-labels that count as much as they are reliable."""

from __future__ import annotations

from torch import Tensor
from torch.nn.modules.loss import _Loss

from .functional import cross_entropy_map, hard_label, masked_mean
from .shapes import check_shapes

__all__ = ["ReliablePseudoLabelLoss"]


class ReliablePseudoLabelLoss(_Loss):
    """Cross-entropy against the reference's hard label, each voxel times its value in the mask: MLRP's unlabeled loss.

    Su et al., Mutual learning with reliable pseudo label, Medical Image Analysis 94, 2024. As in the authors' release
    the sum is divided by the number of voxels where the mask is not zero, not by the sum of its values. Their code
    takes the cross-entropy of probabilities as if they were logits; here it is that of the logits.

    Example::

        >>> import torch
        >>> from metassl_monai.losses import ReliablePseudoLabelLoss
        >>> logits, mask = torch.zeros(1, 2, 3), torch.tensor([[[1.0, 0.5, 0.0]]])
        >>> round(ReliablePseudoLabelLoss()(logits, logits, mask=mask).item(), 3)  # 0.75 ln 2
        0.52
    """

    def forward(
        self, input: Tensor, reference: Tensor, label: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Compute the loss; arguments and result as in :class:`MetaSSLUnlabeledLoss`.

        The values of ``mask`` are weights. Without a mask all voxels weigh 1.
        """
        check_shapes(input, reference=reference, label=label, mask=mask)
        cross_entropy = cross_entropy_map(input, hard_label(reference, label))
        return masked_mean(cross_entropy if mask is None else mask * cross_entropy, mask)
