# SPDX-License-Identifier: Apache-2.0
"""Mutual correction: the better of two unlike networks teaches the other one (Wang et al., MCF, CVPR 2023)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from metassl_monai.losses.correction import label_distance
from metassl_monai.losses.functional import hard_label, masked_mean, soft_dice
from metassl_monai.networks import MeanOfTwo

from .base import Batch, Step, all_images, at_unannotated, pair_streams
from .cps import CrossPseudoSupervision
from .two_networks import TwoNetworkArguments

__all__ = ["MutualCorrection"]


class MutualCorrection(CrossPseudoSupervision):
    """In each batch the network with the lower Dice loss on the labeled images is the reference of the other one.

    Both networks learn from the annotations, and once more where their labels of a labeled image differ: the squared
    difference from the annotation there, mean over the classes (contrastive difference review), without a ramp. On
    unlabeled images each has its pair, but the mask of the winner's is empty (dynamic competitive pseudo-labels): so
    nothing waits for the device, all ranks of a distributed run have the same pairs, and only the loser's threshold
    moves. In a tie both lose. Each rank has a winner of its own.

    Sharpening is left to the loss, so that MetaSSL sees the references as they are. Review, weights and the mean of
    both networks in inference follow the release, which has two classes, and averages the squared differences from the
    pseudo-label over them; :class:`SharpenedMSELoss` adds them up, so it counts as many times as there are classes.

    Args:
        network: the first network, a V-Net in the paper.
        labeled_loss: see :class:`Method`; ``CrossEntropyDiceLoss(scale=1.0, include_background=False)`` is the
            method's own.
        unlabeled_loss: see :class:`Method`; :class:`SharpenedMSELoss` is the method's own.
        ramp: see :class:`Method`.
        second_network: the second network, a 3D ResNet-34 in the paper, see :class:`CrossPseudoSupervision`.
        review_weight: weight of the review.

    Raises:
        ValueError: when both networks are the same object.
    """

    def __init__(self, *shared: Any, review_weight: float = 0.5, **named: Unpack[TwoNetworkArguments]) -> None:
        super().__init__(*shared, **named)
        self.review_weight = review_weight

    def pairs(self, batch: Batch, step: int) -> Step:
        """Judge both networks on labeled images, and the loser by the winner on unlabeled ones."""
        images, target = all_images(batch), batch["labeled"]["label"]
        logits = {"network": self.network(images), "second_network": self.second_network(images)}
        labeled = {name: each[: len(target)] for name, each in logits.items()}
        differ = hard_label(labeled["network"], None) != hard_label(labeled["second_network"], None)
        annotation, known = self.annotated(target)
        differ = differ if known is None else differ & known
        errors = {name: _error(each, annotation, known) for name, each in labeled.items()}
        pairs, unannotated, extras = [], [], {}
        for name, other in (("network", "second_network"), ("second_network", "network")):
            supervised, rectified = pair_streams(logits[name], logits[other], name, target)
            loses = errors[name] >= errors[other]
            everywhere = loses.expand(len(rectified.prediction), 1, *target.shape[2:])
            pairs += [supervised, rectified._replace(mask=everywhere)]
            if self.partial_labels:
                unannotated.append(at_unannotated(supervised._replace(mask=loses.expand_as(target)), target))
            review = masked_mean(label_distance(labeled[name], annotation), differ)
            extras[f"extra/review_{name}"] = self.review_weight * review
        return Step(pairs, extras, labeled["network"], unannotated)

    @property
    def inference_network(self) -> nn.Module:
        """Both networks, whose probabilities are averaged."""
        return MeanOfTwo(self.network, self.second_network)


@torch.no_grad()
def _error(logits: Tensor, target: Tensor, known: Tensor | None) -> Tensor:
    return soft_dice(logits, target, known, squared=True, include_background=False)
