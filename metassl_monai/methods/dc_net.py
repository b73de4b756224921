# SPDX-License-Identifier: Apache-2.0
"""Decoupled consistency: labels where both decoders are sure, direction where not (Chen et al., MICCAI 2023)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Unpack

from metassl_monai.losses.confidences import confidence
from metassl_monai.losses.decoupled import DIRECTED, SURE
from metassl_monai.losses.functional import sum_over_ranks
from metassl_monai.losses.precision import at_least_float
from metassl_monai.networks import Features

from .base import Batch, MethodArguments, Step, at_unannotated, pair_streams
from .two_decoders import TwoDecoders

__all__ = ["DecoupledConsistency", "attention_distance"]

LARGEST_THRESHOLD = 0.95


class DecoupledConsistency(TwoDecoders):
    """One encoder and two decoders, judged by each other on unlabeled voxels as far as a threshold of confidence says.

    Where both decoders are sure, each learns the other's label; elsewhere only the less sure one learns, from the surer
    one. The mask of a pair holds :data:`SURE` or :data:`DIRECTED` there and 0 where its decoder is the surer one of an
    unsure voxel; the method's own loss tells the two apart, MetaSSL parts all of them by itself. The threshold starts
    at ``1 / num_classes`` and moves to the mean confidence of the less confident decoder, by the share of the training
    that is done, up to 0.95. A further term, :func:`attention_distance`, draws the encoder's attention at each level to
    that of the second decoder, on all images, and fades as the ramp rises: ``(1 - ramp) * distillation_weight``.

    Formulas and constants are those of the authors' release (not checked against the paper's), except where it slips or
    where all methods of this package are alike. It compares class by class: a class is sure where both probabilities of
    it are above the threshold (which above 1/2 demands one label, too), and else the smaller one follows the larger
    one; the paper's abstract and this class speak of voxels. It compares on labeled images too, and everywhere as if
    sure once both mean confidences reach 0.95. Its decoders differ in how they upsample; here the second one is the
    first one with other initial weights.

    Args:
        network: must have ``encoder``, which maps images to a list of features, and ``decoder``, which maps such a list
            to logits by ``blocks``, one a level from the coarsest up, as the networks of this package have.
        labeled_loss: see :class:`Method`.
        unlabeled_loss: see :class:`Method`; :class:`DecoupledConsistencyLoss` is the method's own.
        ramp: see :class:`Method`; at most 1.
        num_classes: number of classes, background included.
        iterations: length of the training, over which the threshold grows quicker to follow.
        distillation_weight: weight of the further term.

    Raises:
        ValueError: when the network has no ``encoder`` or no ``decoder`` with ``blocks``, or ``iterations`` is below 1.

    Attributes:
        threshold: confidence above which a decoder is sure, in [0, 1], a scalar; it moves in training mode only.
    """

    title = "DC-Net"
    threshold: Tensor

    def __init__(
        self,
        *shared: Any,
        num_classes: int,
        iterations: int,
        distillation_weight: float = 1000.0,
        **named: Unpack[MethodArguments],
    ) -> None:
        if iterations < 1:
            raise ValueError(f"iterations={iterations}: the threshold needs at least one iteration.")
        super().__init__(*shared, **named)
        blocks: Any = self.first_decoder.blocks
        taps = [f"blocks.{i}" for i in reversed(range(len(blocks)))]
        # the first one's are not used: code that is compiled for a decoder without hooks would serve both
        self.readers = [Features(each, taps) for each in (self.first_decoder, self.second_decoder)]
        self.iterations = iterations
        self.distillation_weight = distillation_weight
        self.register_buffer("threshold", torch.tensor(1 / num_classes))

    def require_network(self, network: nn.Module) -> None:
        """Raise ValueError where the network has no halves, or no levels whose attention is compared."""
        if not (hasattr(network, "encoder") and hasattr(getattr(network, "decoder", None), "blocks")):
            raise ValueError(
                f"{type(network).__name__} has no `encoder` and `decoder` with `blocks`, whose attention DC-Net "
                "compares: use UNet2D or VNet3D of metassl_monai.networks."
            )

    def pairs(self, batch: Batch, step: int) -> Step:
        """Judge each decoder by the other on both streams, and the encoder's attention by the second decoder's."""
        target = batch["labeled"]["label"]
        labeled = len(target)
        encoded = self.encoded(batch)
        (first, _), (second, decoded) = (reader(encoded) for reader in self.readers)
        sureness = confidence(first[labeled:]), confidence(second[labeled:])
        if self.training:
            self._move_threshold(*sureness, step)
        pairs, unannotated = [], []
        for name, prediction, reference, (own, other) in (
            ("network", first, second, sureness),
            ("second_decoder", second, first, sureness[::-1]),
        ):
            on_labeled, on_unlabeled = pair_streams(prediction, reference, name, target)
            pairs += [on_labeled, on_unlabeled._replace(mask=self._mask(own, other))]
            if self.partial_labels:
                mask = self._mask(confidence(on_labeled.prediction), confidence(on_labeled.reference))
                unannotated.append(at_unannotated(on_labeled._replace(mask=mask), target))
        distance = attention_distance(encoded[:-1], decoded.values())
        extras = {"extra/distillation": (1 - self.ramp(step)) * self.distillation_weight * distance}
        return Step(pairs, extras, first[:labeled], unannotated)

    @torch.no_grad()
    def _move_threshold(self, first: Tensor, second: Tensor, step: int) -> None:
        sums = sum_over_ranks(torch.stack([first.mean(), second.mean(), first.new_ones(())]))
        mean = sums[:2].min() / sums[2]
        share = min((step + 1) / self.iterations, 1.0)
        self.threshold.lerp_(mean.to(self.threshold.dtype), share).clamp_(max=LARGEST_THRESHOLD)

    def _mask(self, own: Tensor, other: Tensor) -> Tensor:
        sure = torch.minimum(own, other) > self.threshold
        return torch.where(sure, SURE, torch.where(other > own, DIRECTED, 0))


def attention_distance(students: Iterable[Tensor], teachers: Iterable[Tensor]) -> Tensor:
    """Mean squared difference of attention maps, summed over the levels; gradient to the students only.

    A map is the mean over the channels of the squared features, of unit length over the voxels of an image (Zagoruyko
    and Komodakis, ICLR 2017).

    Args:
        students: features of each level, ``(B, channels, *spatial)``.
        teachers: as many; at each level the channels may differ, the voxels may not.

    Returns:
        A scalar.

    Example::

        >>> import torch
        >>> from metassl_monai.methods.dc_net import attention_distance
        >>> x = torch.tensor([[[1.0, 0.0]]])
        >>> attention_distance([x, x], [3 * x, x.flip(-1)]).item()
        1.0
    """
    levels = zip(students, teachers, strict=True)
    distances = [(_attention(student) - _attention(teacher.detach())).square().mean() for student, teacher in levels]
    return torch.stack(distances).sum()


def _attention(features: Tensor) -> Tensor:
    return F.normalize(at_least_float(features).square().mean(dim=1).flatten(1), dim=1)
