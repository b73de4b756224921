# SPDX-License-Identifier: Apache-2.0
"""Cross-consistency training: decoders of perturbed features agree with the main one (Ouali et al., CVPR 2020)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn

from metassl_monai.networks.second_decoder import fresh_copy

from .base import Batch, Method, Pair, Step, all_images
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

    def __init__(
        self,
        network: nn.Module,
        labeled_loss: nn.Module | Mapping[str, nn.Module],
        unlabeled_loss: nn.Module | Mapping[str, nn.Module],
        ramp: Callable[[int], float],
    ) -> None:
        if not (hasattr(network, "encoder") and hasattr(network, "decoder")):
            raise ValueError(
                f"{type(network).__name__} has no `encoder` and `decoder`, whose features CCT perturbs: "
                "use a network of metassl_monai.networks, or give yours these two submodules."
            )
        super().__init__(network, labeled_loss, unlabeled_loss, ramp)
        self.decoders = nn.ModuleDict({name: fresh_copy(network.get_submodule("decoder")) for name in PERTURBATIONS})

    def pairs(self, batch: Batch, step: int) -> Step:
        """Judge the auxiliary decoders by the main one, and on labeled images that by them."""
        target = batch["labeled"]["label"]
        labeled = len(target)
        features = self.network.get_submodule("encoder")(all_images(batch))
        main = self.network.get_submodule("decoder")(features)
        pairs, logs = [], []
        for name, perturb in PERTURBATIONS.items():
            logits = self.decoders[name]([perturb(x) for x in features])
            logs.append(logits[:labeled].detach().log_softmax(dim=1))
            pairs.append(Pair(logits[:labeled], main[:labeled], name, target, weight=1 / (1 + len(PERTURBATIONS))))
            pairs.append(Pair(logits[labeled:], main[labeled:], name, weight=1 / len(PERTURBATIONS)))
        mean = torch.stack(logs).logsumexp(dim=0)  # log of the mean probabilities, up to a constant
        pairs.append(Pair(main[:labeled], mean, "main", target, weight=1 / (1 + len(PERTURBATIONS))))
        return Step(pairs, {}, main[:labeled])
