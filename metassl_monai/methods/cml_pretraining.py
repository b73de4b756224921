# SPDX-License-Identifier: Apache-2.0
"""The first stage of cross-view mutual learning: mixtures of labeled images, conflicting features (CML, Eq. 11)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metassl_monai.losses.precision import at_least_float
from metassl_monai.networks import MeanOfTwo

from .base import Batch, Method, Pair, Step
from .half_mix import HalfMix

__all__ = ["CrossViewPretraining", "View", "conflict"]


class View(NamedTuple):
    """What one of the two networks makes of images."""

    features: Tensor
    """The deepest ones of its encoder, ``(B, channels, *coarse)``."""
    logits: Tensor
    """``(B, C, *spatial)``."""


class CrossViewPretraining(Method):
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
        network: nn.Module,
        labeled_loss: nn.Module | Mapping[str, nn.Module],
        unlabeled_loss: nn.Module | Mapping[str, nn.Module],
        ramp: Callable[[int], float],
        second_network: nn.Module,
        conflict_weight: float = 0.2,
        box_fraction: float = 2 / 3,
        cutmix: bool = True,
    ) -> None:
        _check_networks(network, second_network)
        super().__init__(network, labeled_loss, unlabeled_loss, ramp)
        self.second_network = second_network
        self.conflict_weight = conflict_weight
        self.mix = HalfMix(box_fraction)
        self.cutmix = cutmix
        # in a tuple, where it is no submodule, else the state dict and DDP would hold every weight twice
        self._mean_of_two = (MeanOfTwo(network, second_network),)

    @property
    def inference_network(self) -> nn.Module:
        """Both networks, whose mean probability is the prediction."""
        return self._mean_of_two[0]

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


def conflict(first: Tensor, second: Tensor) -> Tensor:
    """How alike two networks see the same images: ``2 + 2 cos``, from 0, opposite, to 4, alike (CML, Eq. 1).

    The cosine is taken over the channels and averaged over images and positions. In each of the two terms one network
    moves and the other holds still. Features that are nowhere negative, as after a ReLU, do not come below 2.

    Args:
        first: features of one network, ``(B, channels, *coarse)``.
        second: features of the other one, same shape.

    Raises:
        ValueError: when the shapes differ.

    Example::

        >>> import torch
        >>> from metassl_monai.methods.cml_pretraining import conflict
        >>> x = torch.tensor([[3.0, 4.0]]).view(1, 2, 1, 1)
        >>> conflict(x, 2 * x), conflict(x, -x)
        (tensor(4.), tensor(0.))
    """
    if first.shape != second.shape:
        shapes = f"{tuple(first.shape)} and {tuple(second.shape)}"
        raise ValueError(f"the two encoders end in features of shapes {shapes}: make them alike, or conflict_weight=0.")
    return _opposition(first, second) + _opposition(second, first)


def _opposition(moving: Tensor, still: Tensor) -> Tensor:
    cosine = F.cosine_similarity(at_least_float(moving), at_least_float(still.detach()), dim=1, eps=1e-6)
    return 1 + cosine.mean()


def _check_networks(*networks: nn.Module) -> None:
    for network in networks:
        if not (hasattr(network, "encoder") and hasattr(network, "decoder")):
            raise ValueError(
                f"{type(network).__name__} has no `encoder` and `decoder`, whose features CML compares: "
                "use a network of metassl_monai.networks, or give yours these two submodules."
            )
    first, second = ({id(parameter) for parameter in network.parameters()} for network in networks)
    if first & second:
        raise ValueError(
            "network and second_network share weights, so they would not be two views: "
            'build a second one (in a config: "second_network_def": "%network_def").'
        )
