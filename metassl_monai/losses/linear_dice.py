# SPDX-License-Identifier: Apache-2.0
"""Cross-entropy with the linear Dice of each sample: the own losses of cross-view mutual learning."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.modules.loss import _Loss

from .backbone import PseudoLabelDiceLoss
from .functional import cross_entropy_map, masked_mean, soft_dice
from .shapes import check_shapes

__all__ = ["CrossEntropyLinearDiceLoss", "PseudoLabelLinearDiceLoss"]


class CrossEntropyLinearDiceLoss(_Loss):
    """Half cross-entropy plus half linear soft Dice, the latter a mean over samples (CML, Eq. 2).

    Equals ``monai.losses.DiceCELoss(softmax=True, to_onehot_y=True, lambda_dice=0.5, lambda_ce=0.5)``, with a mask.
    :class:`CrossEntropyDiceLoss` squares the probabilities in the denominator and sums over the whole batch.

    Example::

        >>> import torch
        >>> from metassl_monai.losses import CrossEntropyLinearDiceLoss
        >>> logits, target = torch.zeros(1, 2, 4, 4), torch.zeros(1, 1, 4, 4)
        >>> round(CrossEntropyLinearDiceLoss()(logits, target).item(), 3)
        0.68
    """

    reads_reference = False

    def forward(
        self,
        input: Tensor,
        target: Tensor,
        reference: Tensor | None = None,
        label: Tensor | None = None,
        mask: Tensor | None = None,
        ramp: float = 1.0,
    ) -> Tensor:
        """Compute the loss.

        Args:
            input: logits, ``(B, C, *spatial)``.
            target: class indices, ``(B, 1, *spatial)``, any dtype.
            reference: plays no role, nor do ``label`` and ``ramp``.
            label: see ``reference``.
            mask: non-zero where the loss counts, ``(B, 1, *spatial)``.
            ramp: see ``reference``.

        Raises:
            ValueError: when the shapes do not fit each other.
        """
        check_shapes(input, target=target, mask=mask)
        cross_entropy = masked_mean(cross_entropy_map(input, target), mask)
        inside = [None] * len(input) if mask is None else (mask != 0).split(1)
        dice = [soft_dice(*sample) for sample in zip(input.split(1), target.split(1), inside, strict=True)]
        return 0.5 * (cross_entropy + torch.stack(dice).mean())


class PseudoLabelLinearDiceLoss(PseudoLabelDiceLoss):
    """:class:`CrossEntropyLinearDiceLoss` against the reference's hard label: the unlabeled loss of CML (Eq. 10).

    Example::

        >>> import torch
        >>> from metassl_monai.losses import CrossEntropyLinearDiceLoss, PseudoLabelLinearDiceLoss
        >>> logits, reference = torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4)
        >>> expected = CrossEntropyLinearDiceLoss()(logits, reference.argmax(1, keepdim=True))
        >>> bool(PseudoLabelLinearDiceLoss()(logits, reference) == expected)
        True
    """

    def __init__(self) -> None:
        super().__init__()
        self.loss = CrossEntropyLinearDiceLoss()
