# SPDX-License-Identifier: Apache-2.0
"""The backbones' own losses, called like the MetaSSL losses so that one swaps for the other."""

from __future__ import annotations

from torch import Tensor
from torch.nn.modules.loss import _Loss

from .confidences import at_least_float
from .functional import cross_entropy_map, masked_mean, soft_dice
from .shapes import check_shapes

__all__ = ["CrossEntropyDiceLoss", "PseudoLabelLoss", "SoftmaxMSELoss"]


class CrossEntropyDiceLoss(_Loss):
    """Half cross-entropy plus half squared soft Dice: the supervised loss of the published backbones.

    Equals ``monai.losses.DiceCELoss(softmax=True, to_onehot_y=True, squared_pred=True, batch=True, lambda_dice=0.5,
    lambda_ce=0.5)``, with a mask and without one-hot maps. The reference plays no role.

    Example::

        >>> import torch
        >>> from metassl_monai.losses import CrossEntropyDiceLoss
        >>> logits, target = torch.zeros(1, 2, 4, 4), torch.zeros(1, 1, 4, 4)
        >>> round(CrossEntropyDiceLoss()(logits, target).item(), 3)
        0.647
    """

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
        cross_entropy = masked_mean(cross_entropy_map(input, target), mask)
        inside = None if mask is None else mask != 0
        return 0.5 * (cross_entropy + soft_dice(input, target, inside, squared=True))


class PseudoLabelLoss(_Loss):
    """Mean cross-entropy against the reference's hard label: the unlabeled loss of cross pseudo supervision."""

    def forward(
        self, input: Tensor, reference: Tensor, label: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Compute the loss; arguments and result as in :class:`MetaSSLUnlabeledLoss`."""
        check_shapes(input, reference=reference, label=label, mask=mask)
        if label is None:
            label = reference.detach().max(dim=1, keepdim=True).indices
        return masked_mean(cross_entropy_map(input, label), mask)


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
