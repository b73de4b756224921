# SPDX-License-Identifier: Apache-2.0
"""Entropy minimization: be sure of unlabeled images (Grandvalet and Bengio, NeurIPS 2004)."""

from __future__ import annotations

import torch

from metassl_monai.ignore import IGNORE
from metassl_monai.losses.functional import normalized_entropy

from .base import Batch, Method, Pair, Step, all_images

__all__ = ["EntropyMinimization"]


class EntropyMinimization(Method):
    """One network; on unlabeled images the mean entropy of its probabilities is a term, ramped like unlabeled pairs.

    No prediction is compared with a reference there, so there is no pair and the unlabeled loss is not used: MetaSSL
    applies to the labeled loss only, with the network as its own reference, as for :class:`Supervised`. The entropy is
    divided by ln C, as in common benchmark code, which takes it over the labeled images too.
    """

    names = {"labeled": ("network",), "unlabeled": ()}

    def pairs(self, batch: Batch, step: int) -> Step:
        """Judge the network's prediction by itself against the annotation, and its doubts on unlabeled images."""
        target = batch["labeled"]["label"]
        labeled, unlabeled = self.network(all_images(batch)).tensor_split([len(target)])
        ramp = self.ramp(step)
        extras = {"extra/entropy": ramp * normalized_entropy(unlabeled).mean()}
        if self.partial_labels:
            doubt = torch.where(target == IGNORE, normalized_entropy(labeled), 0)
            extras["extra/entropy_unannotated"] = ramp * doubt.mean()
        return Step([Pair(labeled, labeled, "network", target)], extras, labeled)
