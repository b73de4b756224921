# SPDX-License-Identifier: Apache-2.0
"""Cross-view mutual learning: two networks that differ in what they see and agree in what they say (CML)."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch
from monai.networks.utils import eval_mode
from torch import Tensor
from typing_extensions import Unpack

from metassl_monai.losses.functional import hard_label

from .base import Batch, Pair, Step
from .cml_pretraining import CrossViewArguments, CrossViewPretraining
from .components import largest_components

__all__ = ["CrossViewMutualLearning"]


class PseudoLabel(NamedTuple):
    """What a network says of images that are not mixed."""

    logits: Tensor
    """``(B, C, *spatial)``."""
    label: Tensor
    """The largest component of each class, ``(B, 1, *spatial)``."""

    @classmethod
    def of(cls, logits: Tensor) -> PseudoLabel:
        """Make labels from logits."""
        return cls(logits, largest_components(hard_label(logits, None), logits.shape[1]))


class CrossViewMutualLearning(CrossViewPretraining):
    """Two networks, driven apart in their features, label mixtures for each other.

    An unlabeled mixture shows one image in a box of another one. Each network learns the *other* network's label
    around the box and its *own* in the box, both from the images before they were mixed, where each class kept its
    largest component (Eq. 9). Reference logits are spliced alike, and thresholds follow the spliced reference, one
    state for each network and stream. What else there is, conflict loss and labeled mixtures, is as in
    :class:`CrossViewPretraining`, which should have trained the networks before. In evaluation mode nothing is mixed
    and each network is judged by the other one. The mean of both probabilities is exported, not that of both logits.

    The published 2D networks share all their weights by mistake; here the two are distinct. The terms are not ramped in
    the paper: give ``ramp=lambda step: 1.0``. Mixtures of either stream are passes of their own, as in the authors'
    release, and labeled images are seen in mixtures only. What is returned as prediction is as in
    :class:`CrossViewPretraining`.

    Args:
        network: the first network, see :class:`CrossViewPretraining`.
        labeled_loss: see :class:`Method`; :class:`CrossEntropyLinearDiceLoss` is the method's own.
        unlabeled_loss: see :class:`Method`; :class:`PseudoLabelLinearDiceLoss` is the method's own.
        ramp: see :class:`Method`.
        second_network: the second network, see :class:`CrossViewPretraining`.
        unlabeled_weight: weight of the pseudo-labels (the paper's lambda 1); 0 leaves them out.
        conflict_weight: weight of the conflict loss on either stream (the paper's lambda 2); 0 leaves it out.
        box_fraction: side of the box as a fraction of the image's (the paper's beta).
        cutmix: mix images. Without it each network learns the other's labels on the images as they are (Eq. 3).
        labels_in_eval_mode: make pseudo-labels without dropout and from the running statistics of batch norm. The
            authors make them in training mode.

    Raises:
        ValueError: when a network has no ``encoder`` or no ``decoder``, or the two share weights.

    Example::

        >>> import torch
        >>> from metassl_monai.losses import metassl_losses
        >>> from metassl_monai.methods import CrossViewMutualLearning
        >>> from metassl_monai.networks import UNet2D
        >>> first, second = (UNet2D(1, 2, features=(4, 8), dropout=(0.0, 0.0)) for _ in range(2))
        >>> method = CrossViewMutualLearning(first, *metassl_losses(2), lambda step: 1.0, second_network=second)
        >>> labeled = {"image": torch.rand(2, 1, 8, 8), "label": torch.zeros(2, 1, 8, 8)}
        >>> losses, _ = method({"labeled": labeled, "unlabeled": {"image": torch.rand(2, 1, 8, 8)}}, step=0)
        >>> sorted(losses)[:3]
        ['labeled/conflict', 'labeled/network', 'labeled/second_network']
    """

    names = {"labeled": ("network", "second_network"), "unlabeled": ("network", "second_network")}

    def __init__(
        self,
        *shared: Any,
        unlabeled_weight: float = 1.0,
        labels_in_eval_mode: bool = False,
        **named: Unpack[CrossViewArguments],
    ) -> None:
        super().__init__(*shared, **named)
        self.unlabeled_weight = unlabeled_weight
        self.labels_in_eval_mode = labels_in_eval_mode

    def pairs(self, batch: Batch, step: int) -> Step:
        """Judge both networks on mixtures of either stream."""
        image, label, unlabeled = batch["labeled"]["image"], batch["labeled"]["label"], batch["unlabeled"]["image"]
        annotated = self.views(self.mixed(image, image))
        target = self.mixed(label, label, randomize=False)
        pairs = self.labeled_pairs(annotated, target)
        guesses = self._pseudo_labels(unlabeled) if self.unlabeled_weight != 0 else ()
        # the unlabeled box comes last: pseudo-labels repeat it
        guessed = self.views(self.mixed(unlabeled, unlabeled))
        if guesses:
            first, second = guesses
            pairs.append(self.spliced_pair("network", guessed[0].logits, first, second))
            pairs.append(self.spliced_pair("second_network", guessed[1].logits, second, first))
        extras = self.conflict_terms({"labeled": annotated, "unlabeled": guessed})
        return Step(pairs, extras, annotated[0].logits[self.mixture_of(image, target)])

    def spliced_pair(self, name: str, prediction: Tensor, own: PseudoLabel, other: PseudoLabel) -> Pair:
        """Judge a network on the last mixture by the other one around the box and by itself in the box.

        Args:
            name: the pair's name.
            prediction: logits of the mixtures, ``(mixtures, C, *spatial)``.
            own: what the network says of the images before they were mixed.
            other: what the other network says of them.
        """
        reference = self.mixed(other.logits, own.logits, randomize=False)
        label = self.mixed(other.label, own.label, randomize=False)
        return Pair(prediction, reference, name, label=label, weight=self.unlabeled_weight)

    def _pseudo_labels(self, images: Tensor) -> tuple[PseudoLabel, ...]:
        with self._without_gradient():
            return tuple(PseudoLabel.of(network(images)) for network in (self.network, self.second_network))

    def _without_gradient(self) -> AbstractContextManager[Any]:
        return eval_mode(self.network, self.second_network) if self.labels_in_eval_mode else torch.no_grad()
