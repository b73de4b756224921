# SPDX-License-Identifier: Apache-2.0
"""Copy-paste with two unlike students that correct themselves where they differ (Song and Wang, SDCL, MICCAI 2024)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from metassl_monai.losses.correction import label_distance, uniform_divergence
from metassl_monai.losses.functional import hard_label, masked_mean

from .base import Batch, Step, overlap, require_two
from .bcp import BidirectionalCopyPaste, CopyPasteArguments, in_halves

__all__ = ["DiscrepancyCorrection"]


class DiscrepancyCorrection(BidirectionalCopyPaste):
    """Bidirectional copy-paste of two students on the same mixtures; the teacher follows the first one alone.

    Where the students' labels differ, each student's probabilities are drawn to the label of the mixture
    (``distance``), and where it is wrong by that label, also to the uniform distribution (``uniform``). Both are means
    over these voxels of one half of the batch, in which unlabeled voxels weigh as in the pairs, ramp included; the two
    halves are added. The release's cross-entropy to the uniform distribution is the divergence taken here, but for a
    constant.

    Terms and weights follow the release. There, labeled mixtures train both students before; here a first stage as of
    copy-paste trains the first one, and the second starts fresh. It scores each student and the mean of both, and which
    of them the paper reports is not known; the first one is exported here.

    Args:
        network: the first student, which is the one exported.
        labeled_loss: see :class:`Method`.
        unlabeled_loss: see :class:`Method`; :class:`PseudoLabelDiceLoss` is the method's own.
        ramp: see :class:`Method`; not ramped by the authors: give ``ramp=lambda step: 1.0``.
        second_network: the second student, of another architecture.
        decay: see :class:`BidirectionalCopyPaste`.
        unlabeled_weight: see :class:`BidirectionalCopyPaste`.
        box_fraction: see :class:`BidirectionalCopyPaste`.
        distance_weight: weight of ``distance``.
        uniform_weight: weight of ``uniform``.

    Raises:
        ValueError: when both students are the same object.
    """

    names = dict.fromkeys(("labeled", "unlabeled"), ("inward", "outward", "second_inward", "second_outward"))

    def __init__(
        self,
        *shared: Any,
        second_network: nn.Module,
        distance_weight: float = 0.5,
        uniform_weight: float = 0.05,
        **named: Unpack[CopyPasteArguments],
    ) -> None:
        super().__init__(*shared, **named)
        require_two(self.network, second_network)
        self.second_network = second_network
        self.distance_weight = distance_weight
        self.uniform_weight = uniform_weight

    def pairs(self, batch: Batch, step: int) -> Step:
        """Judge both students on the same mixtures, and each once more where they differ."""
        pairs, _, prediction, _ = super().pairs(batch, step)
        halves = {pair.name: pair for pair in pairs if pair.target is not None}
        mixed = self.paste(batch["labeled"]["image"], batch["unlabeled"]["image"], randomize=False)
        first = {name: half.prediction for name, half in halves.items()}
        views = in_halves(self.second_network, mixed).split([len(logits) for logits in first.values()])
        second = dict(zip(halves, views, strict=True))
        further = [pair._replace(prediction=second[pair.name], name=f"second_{pair.name}") for pair in pairs]
        extras, ramp = {}, self.ramp(step)
        for student, own, other in (("network", first, second), ("second_network", second, first)):
            terms = [self._corrections(own[name], other[name], half, ramp) for name, half in halves.items()]
            distance, uniform = (torch.stack(halves_of).sum() for halves_of in zip(*terms, strict=True))
            extras[f"extra/distance_{student}"] = self.distance_weight * distance
            extras[f"extra/uniform_{student}"] = self.uniform_weight * uniform
        return Step([*pairs, *further], extras, prediction)

    def _corrections(self, logits: Tensor, other: Tensor, half: Any, ramp: float) -> tuple[Tensor, Tensor]:
        """Unweighted ``distance`` and ``uniform`` of a student on the half of the batch that a labeled pair spans."""
        guess = hard_label(logits, None)
        differ = guess != hard_label(other, None)
        target, known = self.annotated(half.target)
        if known is not None:
            target = torch.where(known, target, half.label)  # as in the unlabeled voxels of the mixture
        weight = torch.where(overlap(half.mask, known), 1.0, ramp * self.unlabeled_weight)  # type: ignore[arg-type]
        distance = masked_mean(weight * label_distance(logits, target), differ)
        uniform = masked_mean(weight * uniform_divergence(logits), differ & (guess != target))
        return distance, uniform
