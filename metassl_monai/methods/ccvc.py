# SPDX-License-Identifier: Apache-2.0
"""Conflict-based cross-view consistency: differ in the features, agree in the labels (Wang et al., CCVC, CVPR 2023)."""

from __future__ import annotations

from typing import Any

from typing_extensions import Unpack

from metassl_monai.networks import Features

from .base import Batch, Step, all_images, pair_streams
from .cps import CrossPseudoSupervision
from .terms import conflict
from .two_networks import TwoNetworkArguments

__all__ = ["ConflictCrossView"]


class ConflictCrossView(CrossPseudoSupervision):
    """Cross pseudo supervision of two networks whose deepest features are driven apart.

    A further term, ``1 + cos`` of the features at each position, mean over both directions (L_dis, Eq. 1), moves one
    network while the other holds still. It is ramped like the unlabeled terms; the release ramps neither. Its weight
    and theirs stand as 1 to 1 here, as in the release (``w_dis`` 1, ``w_con`` 2 on the mean of two directions).
    The release compares features inside the decoder of DeepLabV3+, one of them after a convolution, normalization and
    dropout; here they are compared as the encoders leave them, which any network has. Its augmentation (CutMix and
    strong views) is left out, as in its variant without. The common benchmark code lacks the method.

    MetaSSL weighs conflicting confident voxels down, the method's own loss weighs them up.

    Args:
        network: the first network, which is the one exported; see :class:`Features` for the networks that it knows.
        labeled_loss: see :class:`Method`.
        unlabeled_loss: see :class:`Method`; :class:`ConflictPseudoLabelLoss` is the method's own.
        ramp: see :class:`Method`.
        second_network: the second network, see :class:`CrossPseudoSupervision`. Its deepest features must have the
            shape of the first one's.
        conflict_weight: weight of the further term.

    Raises:
        ValueError: when both networks are the same object.
    """

    def __init__(self, *shared: Any, conflict_weight: float = 1.0, **named: Unpack[TwoNetworkArguments]) -> None:
        super().__init__(*shared, **named)
        self.conflict_weight = conflict_weight
        self.features = Features(self.network), Features(self.second_network)

    def pairs(self, batch: Batch, step: int) -> Step:
        """Judge each network by the other on both streams, and the features by their likeness."""
        images, target = all_images(batch), batch["labeled"]["label"]
        first, second = (features.split(images) for features in self.features)
        pairs = [
            *pair_streams(first.logits, second.logits, "network", target),
            *pair_streams(second.logits, first.logits, "second_network", target),
        ]
        likeness = conflict(first.encoded[-1], second.encoded[-1]) / 2
        extras = {"extra/conflict": self.ramp(step) * self.conflict_weight * likeness}
        return Step(pairs, extras, first.logits[: len(target)])
