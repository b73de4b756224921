# SPDX-License-Identifier: Apache-2.0
"""R-Drop: two dropout passes of one network agree with each other (Wu et al., NeurIPS 2021)."""

from __future__ import annotations

import torch

from .base import Batch, Method, Step, all_images, pair_streams

__all__ = ["RDrop"]


class RDrop(Method):
    """One network sees every image twice in one batch; each pass is the reference of the other.

    The network must have dropout, or the passes are equal. Its own unlabeled loss is :class:`KLDivergenceLoss`, over
    the classes and with gradient to both passes. (Common benchmark code trains two networks and takes the divergence
    along the image's width.)
    """

    names = {"labeled": ("first", "second"), "unlabeled": ("first", "second")}

    def pairs(self, batch: Batch, step: int) -> Step:
        """Judge each pass by the other on both streams; the labeled losses are averaged."""
        images = all_images(batch)
        first, second = self.network(torch.cat([images, images])).chunk(2)
        target = batch["labeled"]["label"]
        pairs = [
            *pair_streams(first, second, "first", target, labeled_weight=0.5),
            *pair_streams(second, first, "second", target, labeled_weight=0.5),
        ]
        return Step(pairs, {}, first[: len(target)])
