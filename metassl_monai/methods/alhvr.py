# SPDX-License-Identifier: Apache-2.0
"""ALHVR: two networks learn where at least one of them is unsure, from perturbed features and from prototypes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from typing_extensions import Unpack

from metassl_monai.losses.functional import hard_label, masked_mean, normalized_entropy
from metassl_monai.networks import Features
from metassl_monai.options import check_option

from . import alhvr_terms as terms
from .alhvr_terms import Regions
from .base import Batch, Pair, Step, all_images, at_unannotated
from .perturbations import PERTURBATIONS
from .prototypes import Prototypes, cosines
from .two_networks import TwoNetworkArguments, TwoNetworks

__all__ = ["ALHVR"]

_REGIONS = ("omega1", "omega2", "omega3")


class _View(NamedTuple):
    """What one network makes of images as they are, and again from perturbed features of its encoder."""

    logits: Tensor
    feature: Tensor
    perturbed: Tensor
    perturbed_feature: Tensor

    def part(self, images: slice) -> _View:
        return _View(*(value[images] for value in self))


class ALHVR(TwoNetworks):
    """Two networks, each decoding its features twice: as they are, and perturbed at all levels of the encoder.

    A threshold, the mean of the lowest confidences of the batch, parts the unlabeled voxels by the perturbed
    predictions (Eq. 11-14): in ``omega1`` both networks are sure, in ``omega2`` one alone, in ``omega3`` none. Nothing
    is learned in ``omega1``. In ``omega2`` the network that is unsure draws its perturbed features to the *other*
    network's prototypes (CG-CPCL, Eq. 15-20). In ``omega3`` both perturbed predictions are judged by the surer one of
    the two plain predictions (DTCT, Eq. 21-24), and all four lose entropy (Eq. 25). MetaSSL replaces the losses of the
    labeled pairs and of those in ``omega3``, inside that region; the other terms stay.

    The perturbation is noise or the removal of the most active places, by one coin a network and step. Where paper and
    release differ, prototypes pool the batch and absent classes do not compete, the cross-entropy of an image counts
    inside its own mask, the distance is to the pseudo-label's prototype, and teacher and prototypes get no gradient.

    Args:
        network: the first network, which is the one exported. :class:`Features` must know how to decode it.
        labeled_loss: see :class:`Method`; ``CrossEntropyDiceLoss(scale=1.0)`` is the method's own.
        unlabeled_loss: see :class:`Method`; :class:`SharpenedMSELoss` is the method's own.
        ramp: see :class:`Method`; it weighs the extra terms too.
        second_network: the second network.
        tap: name of the submodule, the same in both networks, whose output the prototypes average. The released code
            takes the first stage of the decoder, the paper says the last but one layer.
        beta: share of the voxels, those of the lowest confidence, whose mean is the threshold (Table 6).
        prototypes: use CG-CPCL (Table 5).
        consistency: use the pairs, DTCT (Table 5).
        entropy: minimize the entropy; a part of DTCT.
        regions: where the pairs count. All three hand the choice to MetaSSL.
        reference: ``"teacher"`` as above; ``"partner"`` judges the plain predictions by each other, as cross pseudo
            supervision does: with ``regions`` and nothing else this is Table 1.
        proto_ce_weight: weight of the prototypes' cross-entropy. A slip in the release multiplies it by the number of
            unlabeled images.
        cos_classes: ``"label"`` draws features to the prototype of the pseudo-label, ``"all"`` to those of all classes,
            as the release does.
        volume_means: divide distances and entropies by all voxels instead of those of the region, as the release does.
        detach: False lets gradient into prototypes and the teacher, as the release does; the teacher's only with
            ``SharpenedMSELoss(detach=False)``.

    Raises:
        ValueError: when both networks are the same object, the encoder of one is not known, one has no submodule
            ``tap``, or an option is out of range.

    Example::

        >>> import torch
        >>> from metassl_monai.losses import metassl_losses
        >>> from metassl_monai.methods import ALHVR
        >>> from metassl_monai.networks import UNet2D
        >>> networks = [UNet2D(1, 2, features=(4, 8), dropout=(0.0, 0.0)) for _ in range(2)]
        >>> shared = networks[0], *metassl_losses(2), lambda step: 1.0
        >>> method = ALHVR(*shared, second_network=networks[1], tap="decoder.blocks.0")
        >>> labeled = {"image": torch.rand(2, 1, 8, 8), "label": torch.zeros(2, 1, 8, 8)}
        >>> losses, _ = method({"labeled": labeled, "unlabeled": {"image": torch.rand(2, 1, 8, 8)}}, step=0)
        >>> sorted(losses)[:3]
        ['extra/entropy_network', 'extra/entropy_second_network', 'extra/prototypes_network']
    """

    def __init__(
        self,
        *shared: Any,
        tap: str,
        beta: float = 0.8,
        prototypes: bool = True,
        consistency: bool = True,
        entropy: bool = True,
        regions: Sequence[str] = ("omega3",),
        reference: Literal["teacher", "partner"] = "teacher",
        proto_ce_weight: float = 1.0,
        cos_classes: Literal["label", "all"] = "label",
        volume_means: bool = False,
        detach: bool = True,
        **named: Unpack[TwoNetworkArguments],
    ) -> None:
        _check(beta, regions, reference, cos_classes)
        super().__init__(*shared, **named)
        self.tap = tap
        self.readers = [Features(each, [tap]) for each in (self.network, self.second_network)]
        for reader in self.readers:
            reader.require_encoder()
        self.beta = beta
        self.prototypes = prototypes
        self.consistency = consistency
        self.entropy = entropy
        self.regions = tuple(regions)
        self.reference = reference
        self.proto_ce_weight = proto_ce_weight
        self.cos_classes = cos_classes
        self.volume_means = volume_means
        self.detach = detach

    def pairs(self, batch: Batch, step: int) -> Step:
        """Judge both networks by each other on labeled images, and by the surer one where both are unsure."""
        images, target = all_images(batch), batch["labeled"]["label"]
        labeled = len(target)
        first, second = (self._view(reader, images) for reader in self.readers)
        pairs = [
            Pair(first.logits[:labeled], second.logits[:labeled], "network", target),
            Pair(second.logits[:labeled], first.logits[:labeled], "second_network", target),
        ]
        unlabeled = first.part(slice(labeled, None)), second.part(slice(labeled, None))
        regions = Regions.of(unlabeled[0].perturbed, unlabeled[1].perturbed, self.beta)
        unannotated = []
        if self.consistency:
            pairs += self._judged(*unlabeled, regions)
        if self.consistency and self.partial_labels:
            parts = first.part(slice(labeled)), second.part(slice(labeled))
            judged = self._judged(*parts, Regions.of(parts[0].perturbed, parts[1].perturbed, self.beta))
            unannotated = [at_unannotated(pair, target) for pair in judged]
        ramp = self.ramp(step)
        extras = {name: ramp * term for name, term in self._extras(*unlabeled, regions).items()}
        return Step(pairs, extras, first.logits[:labeled], unannotated)

    def _view(self, reader: Features, images: Tensor) -> _View:
        logits, tapped, encoded = reader.split(images)
        # the coin is tossed on the host: no wait for the device
        perturb = PERTURBATIONS["most_active" if torch.rand(()) > 0.5 else "noise"]
        perturbed, tapped_again = reader.decode_tapped([perturb(level) for level in encoded])
        if self.tap not in tapped_again:
            raise ValueError(f"tap={self.tap!r} lies before the decoder: name a submodule of the decoder.")
        return _View(logits, tapped[self.tap], perturbed, tapped_again[self.tap])

    def _judged(self, first: _View, second: _View, regions: Regions) -> list[Pair]:
        mask = torch.stack([regions.inside(name) for name in self.regions]).any(dim=0)
        if self.reference == "partner":
            return [
                Pair(first.logits, second.logits, "network", mask=mask),
                Pair(second.logits, first.logits, "second_network", mask=mask),
            ]
        teacher = terms.surer(first.logits, second.logits)
        teacher = teacher.detach() if self.detach else teacher
        return [
            Pair(first.perturbed, teacher, "network", mask=mask),
            Pair(second.perturbed, teacher, "second_network", mask=mask),
        ]

    def _extras(self, first: _View, second: _View, regions: Regions) -> dict[str, Tensor]:
        extras = {}
        if self.prototypes:
            extras["extra/prototypes_network"] = self._drawn(first, second, regions.second & ~regions.first)
            extras["extra/prototypes_second_network"] = self._drawn(second, first, regions.first & ~regions.second)
        if self.consistency and self.entropy:
            mask = regions.inside("omega3")
            extras["extra/entropy_network"] = self._entropy(first, mask)
            extras["extra/entropy_second_network"] = self._entropy(second, mask)
        return extras

    def _drawn(self, learner: _View, other: _View, mask: Tensor) -> Tensor:
        """Draw perturbed features to the other network's prototypes where that one alone is sure."""
        label = hard_label(other.logits, None)
        # without gradient the interpolated features need not be kept
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.detach):
            prototypes = Prototypes.of(other.feature, label, other.logits.shape[1])
        similarity = cosines(learner.perturbed_feature, prototypes, label)
        cross_entropy, distance = terms.prototype_terms(
            similarity, prototypes.present, label, mask, self.cos_classes == "all"
        )
        return self.proto_ce_weight * cross_entropy + self._share(mask) * distance

    def _entropy(self, view: _View, mask: Tensor) -> Tensor:
        entropies = normalized_entropy(view.logits) + normalized_entropy(view.perturbed)
        return self._share(mask) * math.log(view.logits.shape[1]) * masked_mean(entropies, mask)

    def _share(self, mask: Tensor) -> Tensor | float:
        """What turns a mean over the region into a mean over the volume."""
        return mask.float().mean() if self.volume_means else 1.0


def _check(beta: float, regions: Sequence[str], reference: str, cos_classes: str) -> None:
    if not 0 < beta <= 1:
        raise ValueError(f"beta={beta} is no share: choose one above 0 and up to 1.")
    if not regions or not set(regions) <= set(_REGIONS):
        raise ValueError(f"regions={regions!r}: name at least one of {_REGIONS}, or set consistency=False.")
    check_option("reference", reference, ("teacher", "partner"))
    check_option("cos_classes", cos_classes, ("label", "all"))
