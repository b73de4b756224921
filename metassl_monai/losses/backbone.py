# SPDX-License-Identifier: Apache-2.0
"""The backbones' own losses, called like the MetaSSL losses so that one swaps for the other."""

from __future__ import annotations

from torch import Tensor
from torch.nn.modules.loss import _Loss

from .confidences import label_probability
from .cross_entropy_dice import cross_entropy_and_dice, weighted_cross_entropy
from .functional import hard_label, masked_mean, mean_weight
from .precision import at_least_float, sum_dtype
from .shapes import check_shapes

__all__ = ["CrossEntropyDiceLoss", "KLDivergenceLoss", "PseudoLabelDiceLoss", "PseudoLabelLoss", "SoftmaxMSELoss"]


class CrossEntropyDiceLoss(_Loss):
    """Half cross-entropy plus half squared soft Dice: the supervised loss of the published backbones.

    Equals ``monai.losses.DiceCELoss(softmax=True, to_onehot_y=True, squared_pred=True, batch=True, lambda_dice=0.5,
    lambda_ce=0.5)``, with a mask and without one-hot maps. The reference plays no role.

    Args:
        scale: factor on both parts; 1.0 adds them up.
        include_background: count class 0 in the Dice loss. MCF, LUSEG and DualNet leave it out.

    Example::

        >>> import torch
        >>> from metassl_monai.losses import CrossEntropyDiceLoss
        >>> logits, target = torch.zeros(1, 2, 4, 4), torch.zeros(1, 1, 4, 4)
        >>> round(CrossEntropyDiceLoss()(logits, target).item(), 3)
        0.647
    """

    reads_reference = False

    def __init__(self, scale: float = 0.5, include_background: bool = True) -> None:
        super().__init__()
        self.scale = scale
        self.include_background = include_background

    def forward(
        self,
        input: Tensor,
        target: Tensor,
        reference: Tensor | None = None,
        label: Tensor | None = None,
        mask: Tensor | None = None,
        ramp: float = 1.0,
    ) -> Tensor:
        """Compute the loss from ``input``, ``target`` and ``mask``, shaped as in :class:`MetaSSLLabeledLoss`."""
        check_shapes(input, target=target, mask=mask)
        inside = mean_weight(target, mask, sum_dtype(input))
        counted = None if mask is None else (mask != 0).to(inside.dtype)
        cross_entropy, dice = cross_entropy_and_dice(input, target, inside, counted, True, self.include_background)
        return self.scale * (cross_entropy + dice)


class PseudoLabelLoss(_Loss):
    """Mean cross-entropy against the reference's hard label: the unlabeled loss of CPS and, with a threshold, FixMatch.

    Args:
        threshold: voxels whose reference is less confident than this count as 0 in the mean (Sohn et al., FixMatch,
            NeurIPS 2020, Eq. 4); 0 keeps all.

    Raises:
        ValueError: when ``threshold`` lies outside [0, 1].
    """

    def __init__(self, threshold: float = 0.0) -> None:
        super().__init__()
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold={threshold} is no confidence: choose one between 0 and 1.")
        self.threshold = threshold

    def forward(
        self, input: Tensor, reference: Tensor, label: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Compute the loss; arguments and result as in :class:`MetaSSLUnlabeledLoss`."""
        check_shapes(input, reference=reference, label=label, mask=mask)
        label = hard_label(reference, label)
        weight = mean_weight(label, mask, sum_dtype(input))
        if self.threshold > 0:
            weight = weight * (label_probability(reference.detach(), label) >= self.threshold)
        return weighted_cross_entropy(input, label, weight)


class PseudoLabelDiceLoss(_Loss):
    """Half cross-entropy plus half squared soft Dice against the reference's hard label: BCP's unlabeled loss.

    Bai et al., Bidirectional Copy-Paste, CVPR 2023, Eq. 7. It is :class:`CrossEntropyDiceLoss` with a pseudo-label.
    """

    def __init__(self) -> None:
        super().__init__()
        self.loss: _Loss = CrossEntropyDiceLoss()

    def forward(
        self, input: Tensor, reference: Tensor, label: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Compute the loss; arguments and result as in :class:`MetaSSLUnlabeledLoss`."""
        check_shapes(input, reference=reference, label=label, mask=mask)
        loss: Tensor = self.loss(input, hard_label(reference, label), mask=mask)
        return loss


class KLDivergenceLoss(_Loss):
    """``scale * KL(input || reference)``, mean over the voxels, with gradient to *both*: R-Drop's unlabeled loss.

    Wu et al., R-Drop, NeurIPS 2021, Eq. 2: each direction is a pair of its own, hence the half.

    Args:
        scale: factor on the divergence, which is in nats.
    """

    def __init__(self, scale: float = 0.5) -> None:
        super().__init__()
        self.scale = scale

    def forward(
        self, input: Tensor, reference: Tensor, label: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Compute the loss; arguments and result as in :class:`MetaSSLUnlabeledLoss`. ``label`` plays no role."""
        check_shapes(input, reference=reference, mask=mask)
        log_p = at_least_float(input).log_softmax(dim=1)
        log_q = at_least_float(reference).log_softmax(dim=1)
        return self.scale * masked_mean((log_p.exp() * (log_p - log_q)).sum(dim=1, keepdim=True), mask)


class SoftmaxMSELoss(_Loss):
    """Mean squared difference of the probabilities over classes and voxels: the unlabeled loss of Mean Teacher."""

    def forward(
        self, input: Tensor, reference: Tensor, label: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Compute the loss; arguments and result as in :class:`MetaSSLUnlabeledLoss`. ``label`` plays no role."""
        check_shapes(input, reference=reference, mask=mask)
        p = at_least_float(input).softmax(dim=1)
        q = at_least_float(reference.detach()).softmax(dim=1)
        return masked_mean((p - q).square().mean(dim=1, keepdim=True), mask)
