# SPDX-License-Identifier: Apache-2.0
"""Bidirectional copy-paste: learning from mixtures of labeled and unlabeled images (Bai et al., CVPR 2023)."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from metassl_monai.losses.functional import hard_label
from metassl_monai.transforms import BidirectionalCopyPaste as CopyPaste

from .base import Batch, Method, MethodArguments, Pair, Step
from .components import largest_components
from .ema import ema_update

__all__ = ["BidirectionalCopyPaste", "CopyPasteArguments", "in_halves"]


class CopyPasteArguments(MethodArguments, total=False):
    """Arguments of :class:`BidirectionalCopyPaste`."""

    decay: float
    unlabeled_weight: float
    box_fraction: float


class BidirectionalCopyPaste(Method):
    """A labeled box in an unlabeled image and the reverse; the teacher sees the images unmixed and labels the mixture.

    The half of the batch with labeled boxes is ``inward``, the other one ``outward``. In each, the labeled voxels make
    one pair and the unlabeled ones another, apart by masks. Pseudo-labels keep the largest component of each class.

    Networks see one half after the other, and the teacher labeled images apart from unlabeled ones: batch norm is taken
    over as many images as in the authors' release, where the teacher sees no labeled ones. Here it does where a labeled
    loss looks at its reference; otherwise the returned prediction is the student's on the mixtures.

    Needs a network that was trained before, see :class:`CopyPastePretraining`. The terms are not ramped in the paper:
    give ``ramp=lambda step: 1.0``.

    Args:
        network: the student.
        labeled_loss: see :class:`Method`.
        unlabeled_loss: see :class:`Method`; :class:`PseudoLabelDiceLoss` is the method's own.
        ramp: see :class:`Method`.
        decay: weight of the old teacher, from the first step on.
        unlabeled_weight: weight of the unlabeled voxels of a mixture.
        box_fraction: side of the box as a fraction of the image's.
    """

    names = {"labeled": ("inward", "outward"), "unlabeled": ("inward", "outward")}

    def __init__(
        self,
        *shared: Any,
        decay: float = 0.99,
        unlabeled_weight: float = 0.5,
        box_fraction: float = 2 / 3,
        **named: Unpack[MethodArguments],
    ) -> None:
        super().__init__(*shared, **named)
        self.teacher = copy.deepcopy(self.network).requires_grad_(False)
        self.decay = decay
        self.unlabeled_weight = unlabeled_weight
        self.paste = CopyPaste(box_fraction)

    def pairs(self, batch: Batch, step: int) -> Step:
        """Judge the student on mixtures by the mixed predictions of the teacher."""
        image, target = batch["labeled"]["image"], batch["labeled"]["label"].long()
        with torch.no_grad():
            unlabeled = in_halves(self.teacher, batch["unlabeled"]["image"])
        prediction = in_halves(self.network, self.paste(image, batch["unlabeled"]["image"]))
        mask: Any = self.paste.mask
        mixture_of = torch.arange(len(image), device=image.device) % len(prediction)
        labeled = self.labeled_reference(lambda x: in_halves(self.teacher, x), image, prediction[mixture_of])
        labeled_guess, pseudo_label = hard_label(labeled, None), hard_label(unlabeled, None)
        pseudo_label = largest_components(pseudo_label, unlabeled.shape[1])
        reference = self.paste(labeled, unlabeled, randomize=False)
        label = self.paste(labeled_guess, pseudo_label, randomize=False)
        mixed_target = self.paste(target, pseudo_label, randomize=False)
        pairs = []
        half = (len(mask) + 1) // 2
        for name, part in (("inward", slice(None, half)), ("outward", slice(half, None))):
            if len(mask[part]) > 0:  # a last batch of one image has no second half
                shared = prediction[part], reference[part], name
                pairs.append(Pair(*shared, mixed_target[part], label[part], mask[part]))
                pairs.append(Pair(*shared, None, label[part], ~mask[part], self.unlabeled_weight))
        return Step(pairs, {}, labeled)

    def update(self, step: int) -> None:
        """Move the teacher towards the student."""
        ema_update(self.teacher, self.network, self.decay)


def in_halves(network: nn.Module, images: Tensor) -> Tensor:
    """Forward the two halves of a batch one after the other, so that batch norm does not mix them."""
    return torch.cat([network(half) for half in images.split((len(images) + 1) // 2)])
