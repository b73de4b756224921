# SPDX-License-Identifier: Apache-2.0
"""The first stage of cross-view mutual learning: mixtures of labeled images, conflicting features (CML, Eq. 11)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from metassl_monai.networks import MeanOfTwo

from .base import Batch, Pair, Step, require_halves
from .half_mix import HalfMix
from .terms import conflict
from .two_networks import TwoNetworkArguments, TwoNetworks

__all__ = ["CrossViewArguments", "CrossViewPretraining", "View"]


class View(NamedTuple):
    """What one of the two networks makes of images."""

    features: Tensor
    """The deepest ones of its encoder, ``(B, channels, *coarse)``."""
    logits: Tensor
    """``(B, C, *spatial)``."""


class CrossViewArguments(TwoNetworkArguments, total=False):
    """Arguments of :class:`CrossViewPretraining`."""

    conflict_weight: float
    box_fraction: float
    cutmix: bool


class CrossViewPretraining(TwoNetworks):
    """Two networks learn from mixtures of labeled images and are driven to see them by different features.

    Each image of the first half of the batch shows an image of the second half in a box. The returned prediction is
    the first network's on the mixture that an image is part of. Images are mixed in training mode only.

    Args:
        network: the first network. Both need ``encoder``, which maps images to a list of features, and ``decoder``,
            which maps such a list to logits, as the networks of :mod:`metassl_monai.networks` have.
        labeled_loss: see :class:`Method`; :class:`CrossEntropyLinearDiceLoss` is the method's own. A MetaSSL loss takes
            the other network's prediction as reference.
        unlabeled_loss: not used; an argument so that a config can swap the method alone.
        ramp: not used.
        second_network: the second network, of any class whose deepest features have the shape of the first one's. It
            must not share weights with the first, nor start from equal ones.
        conflict_weight: weight of the conflict loss (the paper's lambda 2); 0 leaves it out.
        box_fraction: side of the box as a fraction of the image's (the paper's beta).
        cutmix: mix images. Without it the images are learned from as they are.

    Raises:
        ValueError: when a network has no ``encoder`` or no ``decoder``, or the two share weights.
    """

    names = {"labeled": ("network", "second_network"), "unlabeled": ()}

    def __init__(
        self,
        *shared: Any,
        conflict_weight: float = 0.2,
        box_fraction: float = 2 / 3,
        cutmix: bool = True,
        **named: Unpack[TwoNetworkArguments],
    ) -> None:
        super().__init__(*shared, **named)
        self.conflict_weight = conflict_weight
        self.mix = HalfMix(box_fraction)
        self.cutmix = cutmix

    @staticmethod
    def require_networks(network: nn.Module, second_network: nn.Module) -> None:
        """Raise ValueError where a network has no halves, or the two share weights."""
        networks = network, second_network
        for each in networks:
            require_halves(each, "whose features CML compares")
        first, second = ({id(parameter) for parameter in each.parameters()} for each in networks)
        if first & second:
            raise ValueError(
                "network and second_network share weights, so they would not be two views: "
                'build a second one (in a config: "second_network_def": "%network_def").'
            )

    @property
    def inference_network(self) -> nn.Module:
        """Both networks, whose mean probability is the prediction."""
        return MeanOfTwo(self.network, self.second_network)

    def pairs(self, batch: Batch, step: int) -> Step:
        """Judge both networks on mixtures of labeled images."""
        image, label = batch["labeled"]["image"], batch["labeled"]["label"]
        views = self.views(self.mixed(image, image))
        target = self.mixed(label, label, randomize=False)
        extras = self.conflict_terms({"labeled": views})
        prediction = views[0].logits[self.mixture_of(image, target)]
        return Step(self.labeled_pairs(views, target), extras, prediction)

    def mixed(self, outside: Tensor, inside: Tensor, randomize: bool = True) -> Tensor:
        """Mix two arrays as :class:`HalfMix` does; where nothing is mixed, ``outside`` is all that is seen."""
        return self.mix(outside, inside, randomize) if self.cutmix and self.training else outside

    def mixture_of(self, images: Tensor, mixtures: Tensor) -> Tensor:
        """Number of the mixture that each image is part of, ``(B,)``."""
        return torch.arange(len(images), device=images.device) % len(mixtures)

    def views(self, images: Tensor) -> list[View]:
        """What each network sees in images, ``(B, channels, *spatial)``."""
        views = []
        for network in (self.network, self.second_network):
            features = network.get_submodule("encoder")(images)
            views.append(View(features[-1], network.get_submodule("decoder")(features)))
        return views

    def labeled_pairs(self, views: Sequence[View], target: Tensor) -> list[Pair]:
        """Judge each network by ``target`` and, as reference, by the other one."""
        first, second = (view.logits for view in views)
        return [Pair(first, second, "network", target), Pair(second, first, "second_network", target)]

    def conflict_terms(self, streams: Mapping[str, Sequence[View]]) -> dict[str, Tensor]:
        """The weighted conflict loss of the two views of each stream."""
        if self.conflict_weight == 0:
            return {}
        return {
            f"{stream}/conflict": self.conflict_weight * conflict(first.features, second.features)
            for stream, (first, second) in streams.items()
        }
