# SPDX-License-Identifier: Apache-2.0
"""Mutual learning with reliable pseudo-labels: the surer decoder teaches (Su et al., Medical Image Analysis, 2024)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from typing_extensions import Unpack

from metassl_monai.losses.functional import WEIGHT_FLOOR, hard_label, normalized_entropy
from metassl_monai.losses.precision import at_least_float
from metassl_monai.networks import Features

from .base import Batch, MethodArguments, Step, at_unannotated, pair_streams
from .prototypes import Prototypes, cosines
from .two_decoders import TwoDecoders

__all__ = ["ReliableMutualLearning", "reliability"]


class ReliableMutualLearning(TwoDecoders):
    """One encoder and two decoders; at each unlabeled voxel the one of less entropy teaches the other one (MLRP).

    The mask of a pair is 0 where its decoder is the surer one, or both are alike, and elsewhere the teacher's
    :func:`reliability`, never 0. The method's own loss multiplies by it; a MetaSSL loss sees where the mask is not
    zero, and weighs by its regions instead.

    The paper's abstract states the two questions, which label is reliable and how reliable it is; the formulas are
    those of the authors' release (not checked against the paper's). The release compares on labeled images too, and its
    two decoders differ in how they upsample; here the second one is the first one with other initial weights.

    Args:
        network: see :class:`TwoDecoders`.
        labeled_loss: see :class:`Method`.
        unlabeled_loss: see :class:`Method`; :class:`ReliablePseudoLabelLoss` is the method's own.
        ramp: see :class:`Method`.
        tap: name of the submodule of the decoder whose output the prototypes average: in the release the features that
            enter the head.

    Raises:
        ValueError: when the network has no ``encoder`` or no ``decoder``, or that has no submodule ``tap``.
    """

    title = "MLRP"

    def __init__(self, *shared: Any, tap: str, **named: Unpack[MethodArguments]) -> None:
        super().__init__(*shared, **named)
        self.tap = tap
        self.readers = [Features(decoder, [tap]) for decoder in (self.first_decoder, self.second_decoder)]

    def pairs(self, batch: Batch, step: int) -> Step:
        """Judge each decoder by the other on both streams, on unlabeled images where that one is surer."""
        target = batch["labeled"]["label"]
        labeled = len(target)
        encoded = self.encoded(batch)
        (first, tapped), (second, tapped_too) = (reader(encoded) for reader in self.readers)
        pairs, unannotated = [], []
        for name, prediction, reference, features in (
            ("network", first, second, tapped_too[self.tap]),
            ("second_decoder", second, first, tapped[self.tap]),
        ):
            on_labeled, on_unlabeled = pair_streams(prediction, reference, name, target)
            mask = _mask(on_unlabeled.prediction, on_unlabeled.reference, features[labeled:])
            pairs += [on_labeled, on_unlabeled._replace(mask=mask)]
            if self.partial_labels:
                mask = _mask(on_labeled.prediction, on_labeled.reference, features[:labeled])
                unannotated.append(at_unannotated(on_labeled._replace(mask=mask), target))
        return Step(pairs, {}, first[:labeled], unannotated)


@torch.no_grad()
def reliability(logits: Tensor, features: Tensor) -> Tensor:
    """How far features say what the head says: ``1 - mean_c (s_c - p_c)^2``, without gradient.

    ``p`` are the probabilities of a voxel and ``s`` the cosines of its feature with the prototypes of the classes, each
    the mean feature of the voxels of the image that have this label; 0 for a class that none has.

    Args:
        logits: ``(B, C, *spatial)``.
        features: ``(B, channels, *coarse)``; interpolated to the size of the logits.

    Returns:
        ``(B, 1, *spatial)``, at most 1, and at least 0 for features that are nowhere negative.

    Example::

        >>> import torch
        >>> from metassl_monai.methods.mlrp import reliability
        >>> logits = torch.tensor([[[9.0, -9.0, 0.0], [-9.0, 9.0, 0.1]]])
        >>> features = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]]])
        >>> [round(value, 2) for value in reliability(logits, features).flatten().tolist()]
        [1.0, 1.0, 0.77]
    """
    labels = hard_label(logits, None).split(1)
    # image by image, as the release does: a structure need not look alike in two scans
    similarity = torch.cat(
        [
            cosines(own, Prototypes.of(own, label, logits.shape[1]), label)
            for own, label in zip(features.split(1), labels, strict=True)
        ]
    )
    return 1 - (similarity - at_least_float(logits).softmax(dim=1)).square().mean(dim=1, keepdim=True)


@torch.no_grad()
def _mask(prediction: Tensor, reference: Tensor, features: Tensor) -> Tensor:
    surer = normalized_entropy(reference) < normalized_entropy(prediction)
    # above 0, also where features have opposite signs: no voxel teaches the contrary or drops out of the mask
    return torch.where(surer, reliability(reference, features).clamp_min(WEIGHT_FLOOR), 0)
