# SPDX-License-Identifier: Apache-2.0
"""Uncertainty-rectified pyramid consistency: all scales of a decoder agree (Luo et al., URPC, MICCAI 2021)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Unpack

from metassl_monai.losses.functional import log_mean_probabilities
from metassl_monai.networks import Features

from .base import Batch, Method, MethodArguments, Pair, Step, all_images
from .perturbations import feature_noise, most_active_dropout

__all__ = ["UncertaintyRectifiedPyramid"]


def channel_dropout(x: Tensor) -> Tensor:
    """Drop half of the channels of each sample."""
    return torch.feature_dropout(x, 0.5, True)


PERTURBATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "scale_2": feature_noise,
    "scale_4": most_active_dropout,
    "scale_8": channel_dropout,
}


class UncertaintyRectifiedPyramid(Method):
    """One network with a head at each of the four finest scales of its decoder; each is judged by the mean of all.

    The three coarser heads belong to the method, see perturbed features in training, as in the authors' 2D code, and
    are enlarged to full resolution (by repetition, as there); ``scale_2`` is the one of half the resolution. The
    network's own head is what is exported. All four learn from annotations; labeled and unlabeled terms are averaged
    over the scales. The mean prediction is detached, which that code does not do.

    Args:
        network: must have a ``decoder`` with a list of at least four ``blocks``, from the coarsest up, and a
            convolution ``head``, as :class:`UNet2D` and :class:`VNet3D` of five levels have.
        labeled_loss: see :class:`Method`.
        unlabeled_loss: see :class:`Method`; :class:`UncertaintyRectifiedLoss` is the method's own.
        ramp: see :class:`Method`.

    Raises:
        ValueError: when the network has no such decoder.
    """

    names = dict.fromkeys(("labeled", "unlabeled"), ("scale_1", *PERTURBATIONS))

    def __init__(self, *shared: Any, **named: Unpack[MethodArguments]) -> None:
        super().__init__(*shared, **named)
        blocks, head = _blocks_and_head(self.network)
        levels = range(len(blocks) - 2, len(blocks) - 2 - len(PERTURBATIONS), -1)
        self.taps = {name: f"decoder.blocks.{i}" for name, i in zip(PERTURBATIONS, levels, strict=True)}
        self.features = Features(self.network, taps=list(self.taps.values()))
        self.heads = nn.ModuleDict({n: _head_like(head, blocks[i]) for n, i in zip(self.taps, levels, strict=True)})

    def pairs(self, batch: Batch, step: int) -> Step:
        """Judge each scale by the mean of all on both streams."""
        target = batch["labeled"]["label"]
        labeled = len(target)
        scales = self.scales(all_images(batch))
        mean = log_mean_probabilities([logits.detach() for logits in scales.values()])
        pairs = []
        for name, logits in scales.items():
            pairs.append(Pair(logits[:labeled], mean[:labeled], name, target, weight=1 / len(scales)))
            pairs.append(Pair(logits[labeled:], mean[labeled:], name, weight=1 / len(scales)))
        return Step(pairs, {}, scales["scale_1"][:labeled])

    def scales(self, images: Tensor) -> dict[str, Tensor]:
        """Logits of each scale at the resolution of the images, ``(B, C, *spatial)``."""
        full, tapped = self.features(images)
        scales = {"scale_1": full}
        for name, perturb in PERTURBATIONS.items():
            x = tapped[self.taps[name]]
            scales[name] = F.interpolate(self.heads[name](perturb(x) if self.training else x), size=images.shape[2:])
        return scales


def _blocks_and_head(network: nn.Module) -> tuple[Any, Any]:
    decoder = getattr(network, "decoder", None)
    blocks, head = getattr(decoder, "blocks", ()), getattr(decoder, "head", None)
    if len(blocks) <= len(PERTURBATIONS) or not isinstance(head, nn.Conv2d | nn.Conv3d):
        raise ValueError(
            f"{type(network).__name__} has no `decoder` with four `blocks` and a convolution `head`, whose scales URPC "
            "compares: use UNet2D or VNet3D of metassl_monai.networks with at least five levels."
        )
    return blocks, head


def _head_like(head: Any, block: nn.Module) -> nn.Module:
    """A head of the same kind for the features that a block puts out."""
    last = [part for part in block.modules() if isinstance(part, nn.Conv2d | nn.Conv3d)][-1]
    made: nn.Module = type(head)(last.out_channels, head.out_channels, head.kernel_size, padding=head.padding)
    return made
