# SPDX-License-Identifier: Apache-2.0
"""Dual Networks: two unlike networks teach each other where they are sure (arXiv 2505.17690)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from metassl_monai.losses.functional import soft_dice
from metassl_monai.networks import Features, MeanOfTwo
from metassl_monai.options import check_option

from . import dualnet_terms as terms
from .base import Batch, Pair, Step, all_images, at_unannotated
from .two_networks import TwoNetworkArguments, TwoNetworks

__all__ = ["DualNet"]


class _View(NamedTuple):
    """What one network makes of all images, labeled ones first."""

    logits: Tensor
    features: Tensor | None
    """None where L_c is not used."""
    sure: Tensor
    """Of the unlabeled images, ``(B_u, 1, *spatial)``."""


class DualNet(TwoNetworks):
    """Two networks see the same images; each learns from the other's pseudo-labels, but for the most uncertain ones.

    In each batch the network with the lower Dice loss on the labeled images is the *teacher* of two further terms: the
    other one, the *student*, imitates its tempered probabilities (L_une) and draws the features of its own unsure
    voxels to the prototypes of its sure ones (L_c). A third term makes the probabilities of both alike (L_reg). All
    follow Eq. 1-11. The paper ramps L_c alone: give ``ramp=lambda step: 1.0``.

    Of the authors' release, only the labeled loss, L_reg, L_une with hard targets and a further term on labeled images
    have gradients; it is ``contrastive_ramp=None, pseudo_labels=False, temperature=0.0, review=0.5, roles="fixed"``.

    Args:
        network: the first network, a V-Net in the paper.
        labeled_loss: see :class:`Method`; ``CrossEntropyDiceLoss(scale=1.0, include_background=False)`` is the
            method's own.
        unlabeled_loss: see :class:`Method`; :class:`PseudoLabelLoss` is the method's own. Its mask holds the voxels of
            which the reference is sure.
        ramp: see :class:`Method`.
        second_network: the second network, a ResNet in the paper.
        contrastive_ramp: weight of L_c at a step, such as ``GaussianRamp(iterations)``. None leaves it out.
        feature: name of the submodule, the same in both networks, whose output L_c compares: at full resolution, as
            the last level of the decoder of the networks of this package.
        keep: share of the unlabeled voxels, those of least entropy, of which a network counts as sure; 1.0 does not
            filter, and nothing is then unsure in L_c.
        pseudo_labels: learn from the other's pseudo-labels (L_u).
        uncertainty: use L_une (Table 3).
        regularization: use L_reg (Table 3).
        temperature: of the teacher in L_une; 0 gives hard targets. The paper names no value.
        review: weight of the release's further term, see :func:`metassl_monai.methods.dualnet_terms.review`.
        roles: ``"loss"`` as above; ``"fixed"`` makes ``network`` the teacher always.

    Raises:
        ValueError: when both networks are the same object, a network lacks the submodule ``feature`` or has it at
            another resolution, or an option is out of range.

    Example::

        >>> import torch
        >>> from metassl_monai.losses import metassl_losses
        >>> from metassl_monai.methods import DualNet, GaussianRamp
        >>> from metassl_monai.networks import ResNet34VNet3D, VNet3D
        >>> networks = [kind(1, 2, features=(2, 4, 4, 4, 4)) for kind in (VNet3D, ResNet34VNet3D)]
        >>> losses, ramps = metassl_losses(2), (lambda step: 1.0, GaussianRamp(6000))
        >>> method = DualNet(networks[0], *losses, ramps[0], second_network=networks[1], contrastive_ramp=ramps[1])
        >>> image, label = torch.randn(2, 1, 16, 16, 32), torch.zeros(2, 1, 16, 16, 32)
        >>> sorted(method({"labeled": {"image": image, "label": label}, "unlabeled": {"image": image}}, 0)[0])[:3]
        ['extra/contrast', 'extra/regularization', 'extra/uncertainty']
    """

    def __init__(
        self,
        *shared: Any,
        contrastive_ramp: Callable[[int], float] | None,
        feature: str = "decoder.blocks.3",
        keep: float = 0.8,
        pseudo_labels: bool = True,
        uncertainty: bool = True,
        regularization: bool = True,
        temperature: float = 0.5,
        review: float = 0.0,
        roles: Literal["loss", "fixed"] = "loss",
        **named: Unpack[TwoNetworkArguments],
    ) -> None:
        _check(keep, temperature, roles)
        super().__init__(*shared, **named)
        self.contrastive_ramp = contrastive_ramp
        self.feature = feature
        taps = () if contrastive_ramp is None else (feature,)
        self.readers = [Features(each, taps) for each in (self.network, self.second_network)]
        self.keep = keep
        self.pseudo_labels = pseudo_labels
        self.uncertainty = uncertainty
        self.regularization = regularization
        self.temperature = temperature
        self.review = review
        self.roles = roles

    def pairs(self, batch: Batch, step: int) -> Step:
        """Judge each network by the other, on unlabeled images where the other is sure."""
        images, target = all_images(batch), batch["labeled"]["label"]
        first, second = (self._view(reader, images, len(target)) for reader in self.readers)
        pairs = [
            *self._judged(first, second, "network", target),
            *self._judged(second, first, "second_network", target),
        ]
        student, teacher = self._student_and_teacher(first, second, target)
        extras = self._extras(student, teacher, target, step)
        return Step(pairs, extras, first.logits[: len(target)], self._unannotated(pairs))

    @property
    def inference_network(self) -> nn.Module:
        """Both networks, whose probabilities are averaged."""
        return MeanOfTwo(self.network, self.second_network)

    def _view(self, reader: Features, images: Tensor, labeled: int) -> _View:
        logits, tapped = reader(images)
        features = tapped.get(self.feature)
        if features is not None and features.shape[2:] != logits.shape[2:]:
            raise ValueError(
                f"feature={self.feature!r} gives {tuple(features.shape[2:])} voxels a channel and the network "
                f"{tuple(logits.shape[2:])}: name a submodule at full resolution, or set contrastive_ramp=None."
            )
        return _View(logits, features, terms.reliable(logits[labeled:], self.keep))

    def _judged(self, view: _View, other: _View, name: str, target: Tensor) -> list[Pair]:
        labeled = len(target)
        pairs = [Pair(view.logits[:labeled], other.logits[:labeled], name, target)]
        if self.pseudo_labels:
            pairs.append(Pair(view.logits[labeled:], other.logits[labeled:], name, mask=other.sure))
        return pairs

    def _unannotated(self, pairs: list[Pair]) -> list[Pair]:
        if not (self.partial_labels and self.pseudo_labels):
            return []
        labeled = [pair for pair in pairs if pair.target is not None]
        sure = (pair._replace(mask=terms.reliable(pair.reference, self.keep)) for pair in labeled)
        return [at_unannotated(pair, pair.target) for pair in sure]  # type: ignore[arg-type]

    def _extras(self, student: _View, teacher: _View, target: Tensor, step: int) -> dict[str, Tensor]:
        labeled, extras = len(target), {}
        if self.regularization:
            extras["extra/regularization"] = terms.consistency(student.logits, teacher.logits)
        if self.uncertainty:
            extras["extra/uncertainty"] = terms.uncertainty(student.logits, teacher.logits, self.temperature)
        if self.contrastive_ramp is not None and student.features is not None:
            term = terms.contrast(student.features[labeled:], student.logits[labeled:], student.sure)
            extras["extra/contrast"] = self.contrastive_ramp(step) * term
        if self.review > 0:
            first, second = student.logits[:labeled], teacher.logits[:labeled]
            annotation, known = self.annotated(target)
            views = (first, second), (second, first)
            both = [terms.review(own, other, annotation, known=known) for own, other in views]
            extras["extra/review"] = self.review * torch.stack(both).sum()
        return extras

    @torch.no_grad()
    def _student_and_teacher(self, first: _View, second: _View, target: Tensor) -> tuple[_View, _View]:
        if self.roles == "fixed":
            return second, first
        target, known = self.annotated(target)
        dice = [
            soft_dice(view.logits[: len(target)], target, known, squared=True, include_background=False)
            for view in (first, second)
        ]
        return (second, first) if dice[0] <= dice[1] else (first, second)


def _check(keep: float, temperature: float, roles: str) -> None:
    if not 0 < keep <= 1:
        raise ValueError(f"keep={keep} is no share: choose one above 0 and up to 1.")
    if temperature < 0:
        raise ValueError(f"temperature={temperature} is negative: choose 0 for hard targets, or more.")
    check_option("roles", roles, ("loss", "fixed"))
