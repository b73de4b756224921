# SPDX-License-Identifier: Apache-2.0
"""Cross pseudo supervision: two networks teach each other (Chen et al., CVPR 2021)."""

from __future__ import annotations

from .base import Batch, Step, all_images, pair_streams
from .two_networks import TwoNetworks

__all__ = ["CrossPseudoSupervision"]


class CrossPseudoSupervision(TwoNetworks):
    """Two networks of their own initialization see the same images; each is the reference of the other.

    Args:
        network: the first network, which is the one exported.
        labeled_loss: see :class:`Method`.
        unlabeled_loss: see :class:`Method`; :class:`PseudoLabelLoss` is the method's own.
        ramp: see :class:`Method`.
        second_network: the second network. It must not share weights with the first, nor start from equal ones.

    Raises:
        ValueError: when both networks are the same object.
    """

    def pairs(self, batch: Batch, step: int) -> Step:
        """Judge each network by the other on both streams."""
        images = all_images(batch)
        first, second = self.network(images), self.second_network(images)
        target = batch["labeled"]["label"]
        pairs = [
            *pair_streams(first, second, "network", target),
            *pair_streams(second, first, "second_network", target),
        ]
        return Step(pairs, {}, first[: len(target)])
