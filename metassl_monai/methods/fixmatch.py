# SPDX-License-Identifier: Apache-2.0
"""FixMatch: the weak view of an image teaches its strong view (Sohn et al., NeurIPS 2020)."""

from __future__ import annotations

from typing import Any, Literal

from typing_extensions import Unpack

from metassl_monai.options import check_option

from .base import Batch, Method, MethodArguments, Pair, Step, all_images

__all__ = ["FixMatch"]


class FixMatch(Method):
    """One network; its prediction on a weakly augmented image is the reference of that on a strongly augmented one.

    Batches need ``image`` and ``image_strong``, which share their geometry: see
    :class:`~metassl_monai.transforms.WeakStrongViewsd`. MetaSSL's text swaps the two views once (Sec. III-E); here the
    weak one is the reference, as in FixMatch.

    Args:
        network: the network.
        labeled_loss: see :class:`Method`.
        unlabeled_loss: see :class:`Method`; :class:`PseudoLabelLoss` with a threshold of 0.95 is the method's own.
        ramp: see :class:`Method`.
        labeled_views: ``"weak"`` trains on the weak view of the labeled images, as FixMatch does, and a MetaSSL loss
            takes the network's own prediction as reference; ``"both"`` lets each view judge the other.

    Raises:
        ValueError: when ``labeled_views`` is unknown.
    """

    names = {"labeled": ("weak", "strong"), "unlabeled": ("strong",)}

    def __init__(
        self, *shared: Any, labeled_views: Literal["both", "weak"] = "both", **named: Unpack[MethodArguments]
    ) -> None:
        check_option("labeled_views", labeled_views, ("both", "weak"))
        super().__init__(*shared, **named)
        self.labeled_views = labeled_views

    def pairs(self, batch: Batch, step: int) -> Step:
        """Judge the strong view by the weak one; on labeled images also the other way round."""
        for stream in ("unlabeled",) if self.labeled_views == "weak" else ("labeled", "unlabeled"):
            if "image_strong" not in batch[stream]:
                raise ValueError(
                    f"{stream} batches have no image_strong: add WeakStrongViewsd(keys='image') to the transforms."
                )
        target = batch["labeled"]["label"]
        labeled = len(target)
        weak = self.network(all_images(batch))
        if self.labeled_views == "weak":
            strong = self.network(batch["unlabeled"]["image_strong"])
            pairs = [Pair(weak[:labeled], weak[:labeled], "weak", target), Pair(strong, weak[labeled:], "strong")]
            return Step(pairs, {}, weak[:labeled])
        strong = self.network(all_images(batch, "image_strong"))
        pairs = [
            Pair(weak[:labeled], strong[:labeled], "weak", target, weight=0.5),
            Pair(strong[:labeled], weak[:labeled], "strong", target, weight=0.5),
            Pair(strong[labeled:], weak[labeled:], "strong"),
        ]
        return Step(pairs, {}, weak[:labeled])
