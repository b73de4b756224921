# SPDX-License-Identifier: Apache-2.0
"""Supervised learning on the labeled images alone: the baseline, and "SL + L^lqh" of MetaSSL's Table IV."""

from __future__ import annotations

from .base import Batch, Method, Pair, Step

__all__ = ["Supervised"]


class Supervised(Method):
    """One network, labeled images only. With a MetaSSL labeled loss the network is its own reference.

    The unlabeled loss and the ramp are not used; they are arguments so that a config can swap the method alone.
    """

    names = {"labeled": ("network",), "unlabeled": ()}
    needs_unlabeled = False

    def pairs(self, batch: Batch, step: int) -> Step:
        """Judge the network's prediction by itself against the annotation."""
        prediction = self.network(batch["labeled"]["image"])
        return Step([Pair(prediction, prediction, "network", batch["labeled"]["label"])], {}, prediction)
