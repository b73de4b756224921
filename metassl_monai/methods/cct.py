# SPDX-License-Identifier: Apache-2.0
"""Cross-consistency training: decoders of perturbed features agree with the main one (Ouali et al., CVPR 2020)."""

from __future__ import annotations

from typing import Any

from torch import nn
from typing_extensions import Unpack

from metassl_monai.losses.functional import log_mean_probabilities
from metassl_monai.networks.copies import fresh_copy

from .base import Batch, Method, MethodArguments, Pair, Step, all_images, require_halves
from .perturbations import PERTURBATIONS

__all__ = ["CrossConsistencyTraining"]


class CrossConsistencyTraining(Method):
    """One encoder, the main decoder, and an auxiliary decoder for each kind of perturbation of the encoder's features.

    On unlabeled images the main decoder is the reference and gets no gradient, as in the paper. On labeled images all
    four decoders learn: an auxiliary one is judged by the main one, and that by the mean of the auxiliary ones.

    Args:
        network: must have ``encoder``, which maps images to a list of features, and ``decoder``, which maps such a list
            to logits, as the networks of :mod:`metassl_monai.networks` have. The auxiliary decoders are fresh copies.
        labeled_loss: see :class:`Method`.
        unlabeled_loss: see :class:`Method`; :class:`SoftmaxMSELoss` is the method's own.
        ramp: see :class:`Method`.

    Raises:
        ValueError: when the network has no ``encoder`` or no ``decoder``.
    """

    names = {"labeled": ("main", *PERTURBATIONS), "unlabeled": tuple(PERTURBATIONS)}

    def __init__(self, *shared: Any, **named: Unpack[MethodArguments]) -> None:
        super().__init__(*shared, **named)
        require_halves(self.network, "whose features CCT perturbs")
        self.decoders = nn.ModuleDict(
            {name: fresh_copy(self.network.get_submodule("decoder")) for name in PERTURBATIONS}
        )

    def pairs(self, batch: Batch, step: int) -> Step:
        """Judge the auxiliary decoders by the main one, and on labeled images that by them."""
        target = batch["labeled"]["label"]
        labeled = len(target)
        features = self.network.get_submodule("encoder")(all_images(batch))
        main = self.network.get_submodule("decoder")(features)
        pairs, auxiliary = [], []
        for name, perturb in PERTURBATIONS.items():
            logits = self.decoders[name]([perturb(x) for x in features])
            auxiliary.append(logits[:labeled].detach())
            pairs.append(Pair(logits[:labeled], main[:labeled], name, target, weight=1 / (1 + len(PERTURBATIONS))))
            pairs.append(Pair(logits[labeled:], main[labeled:], name, weight=1 / len(PERTURBATIONS)))
        pairs.append(
            Pair(main[:labeled], log_mean_probabilities(auxiliary), "main", target, weight=1 / (1 + len(PERTURBATIONS)))
        )
        return Step(pairs, {}, main[:labeled])
