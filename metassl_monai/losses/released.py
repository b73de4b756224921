# SPDX-License-Identifier: Apache-2.0
"""The MetaSSL losses in the form of the authors' release, ingredient by ingredient.

By default each ingredient is the paper's; the presets ``ref_*`` choose the release's.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, get_args

from torch import Tensor, nn

from metassl_monai.options import check_option

from .cross_entropy_dice import weighted_cross_entropy
from .functional import hard_label
from .metassl import MetaSSLLabeledLoss, MetaSSLUnlabeledLoss
from .normalization import UNANIMOUS, Normalizer, Unanimous
from .precision import sum_dtype
from .shapes import check_shapes

__all__ = ["ReleasedLabeledLoss", "ReleasedUnlabeledLoss"]

Judge: TypeAlias = Literal["reference", "self"]
Discrepancy: TypeAlias = Literal["annotation", "pair"]


class ReleasedUnlabeledLoss(MetaSSLUnlabeledLoss):
    """:class:`MetaSSLUnlabeledLoss` whose unanimous, confident voxels may be divided by their number in two parts.

    Args:
        num_classes: number of classes, background included.
        unanimous: with ``normalization="region"``, ``"split"`` takes the means of UC over the voxels that the reference
            calls background and over the others, apart, so that the background does not drown them. ``"released"``
            counts the background's twice and the others' not at all, a slip of the authors' 2D release.
        paper: further arguments of :class:`MetaSSLUnlabeledLoss`.

    Raises:
        ValueError: when an option is unknown or out of range, or ``unanimous`` does not go with the normalization.

    Example::

        >>> import torch
        >>> from metassl_monai.losses import ReleasedUnlabeledLoss
        >>> loss = ReleasedUnlabeledLoss(2, normalization="region", unanimous="split")
        >>> loss(torch.zeros(1, 2, 4), torch.zeros(1, 2, 4)) > 0
        tensor(True)
    """

    def __init__(self, num_classes: int, *, unanimous: Unanimous = "joint", **paper: Any) -> None:
        super().__init__(num_classes, **paper)
        self.normalizer = _normalizer(self, unanimous)
        self.unanimous = unanimous


class ReleasedLabeledLoss(MetaSSLLabeledLoss):
    """The labeled loss with what sets the authors' release apart: ``L = base + ramp * scale * (cross-entropy + dice)``.

    The release takes the regions from the confidence of the trained network itself and its agreement with its partner,
    has no weighted Dice, ramps all of it, and adds it to a plain supervised loss.

    Args:
        num_classes: number of classes, background included.
        judge: whose confidence and label make the regions: the ``"reference"``'s, or the ``input``'s own (``"self"``).
        discrepancy: what the judge's label is compared with: the ``"annotation"``, or the label of the other one of
            input and reference (``"pair"``).
        dice: add the weighted Dice.
        ramped: multiply the weighted part by the ramp.
        base: a plain loss beside it, called as ``base(input, target, mask=mask)``.
        unanimous: see :class:`ReleasedUnlabeledLoss`.
        paper: further arguments of :class:`MetaSSLLabeledLoss`.

    Raises:
        ValueError: when an option is unknown or out of range, or ``unanimous`` does not go with the normalization.

    Example::

        >>> import torch
        >>> from metassl_monai.losses import CrossEntropyDiceLoss, ReleasedLabeledLoss
        >>> loss = ReleasedLabeledLoss(2, ramped=True, base=CrossEntropyDiceLoss())
        >>> logits, target = torch.zeros(1, 2, 4, 4), torch.zeros(1, 1, 4, 4)
        >>> bool(loss(logits, target, logits, ramp=0.0) == CrossEntropyDiceLoss()(logits, target))
        True
    """

    def __init__(
        self,
        num_classes: int,
        *,
        judge: Judge = "reference",
        discrepancy: Discrepancy = "annotation",
        dice: bool = True,
        ramped: bool = False,
        base: nn.Module | None = None,
        unanimous: Unanimous = "joint",
        **paper: Any,
    ) -> None:
        super().__init__(num_classes, **paper)
        check_option("judge", judge, get_args(Judge))
        check_option("discrepancy", discrepancy, get_args(Discrepancy))
        self.normalizer = _normalizer(self, unanimous)
        self.unanimous = unanimous
        self.judge = judge
        self.discrepancy = discrepancy
        self.dice = dice
        self.ramped = ramped
        self.base = base

    def forward(
        self,
        input: Tensor,
        target: Tensor,
        reference: Tensor,
        label: Tensor | None = None,
        mask: Tensor | None = None,
        ramp: float = 1.0,
    ) -> Tensor:
        """Compute the loss, see :class:`MetaSSLLabeledLoss`; ``ramp`` multiplies the weighted part if ``ramped``."""
        check_shapes(input, self.partition.num_classes, reference, target=target, label=label, mask=mask)
        judge, judge_label, other = self._judged(input, target, reference, label)
        judge_label, confidence = self.partition.judge(judge, judge_label)
        regions = self.partition.assign(judge_label, confidence, other, mask, judge)
        if self.dice:
            loss = self.cross_entropy_and_dice(input, target, regions, judge_label, mask)
        else:
            weight = self.normalized_weights(regions, judge_label, mask, sum_dtype(input))
            loss = weighted_cross_entropy(input, target, weight)
        loss = self.scale * (ramp if self.ramped else 1.0) * loss
        return loss if self.base is None else loss + self.base(input, target, mask=mask)

    def _judged(
        self, input: Tensor, target: Tensor, reference: Tensor, label: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """Whose confidence counts, its label where it is given, and the label that it is compared with."""
        if self.judge == "self":
            return input, None, target if self.discrepancy == "annotation" else hard_label(reference, label)
        return reference, label, target if self.discrepancy == "annotation" else hard_label(input, None)


def _normalizer(loss: MetaSSLLabeledLoss | MetaSSLUnlabeledLoss, unanimous: Unanimous) -> Normalizer:
    check_option("unanimous", unanimous, tuple(UNANIMOUS))
    if unanimous == "joint":
        return loss.normalizer
    if loss.normalization != "region":
        raise ValueError(f"unanimous={unanimous!r} averages parts of a region: it needs normalization='region'.")
    return UNANIMOUS[unanimous]
