# SPDX-License-Identifier: Apache-2.0
"""Squared differences that count less where prediction and reference are far apart."""

from __future__ import annotations

from torch import Tensor
from torch.nn.modules.loss import _Loss

from .functional import WEIGHT_FLOOR, masked_mean
from .precision import at_least_float
from .shapes import check_shapes

__all__ = ["UncertaintyRectifiedLoss"]


class UncertaintyRectifiedLoss(_Loss):
    """``mean(w * mse) / mean(w) + mean(KL)`` with ``KL = KL(reference || input)`` and ``w = exp(-KL)``: URPC's loss.

    Luo et al., Uncertainty Rectified Pyramid Consistency, MICCAI 2021 (uncertainty rectification). Both parts carry
    gradient, the weight too; the second part keeps the prediction from gaining by being uncertain. The squared
    difference is averaged over the classes, as in the authors' code.

    Example::

        >>> import torch
        >>> from metassl_monai.losses import UncertaintyRectifiedLoss
        >>> logits = torch.randn(1, 3, 4, 4)
        >>> UncertaintyRectifiedLoss()(logits, logits).item()
        0.0
    """

    def forward(
        self, input: Tensor, reference: Tensor, label: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Compute the loss; arguments and result as in :class:`MetaSSLUnlabeledLoss`. ``label`` plays no role."""
        check_shapes(input, reference=reference, mask=mask)
        log_p = at_least_float(input).log_softmax(dim=1)
        log_q = at_least_float(reference.detach()).log_softmax(dim=1)
        divergence = (log_q.exp() * (log_q - log_p)).sum(dim=1, keepdim=True)
        weight = (-divergence).exp()
        square = (log_p.exp() - log_q.exp()).square().mean(dim=1, keepdim=True)
        rectified = masked_mean(weight * square, mask) / masked_mean(weight, mask).clamp_min(WEIGHT_FLOOR)
        return rectified + masked_mean(divergence, mask)
