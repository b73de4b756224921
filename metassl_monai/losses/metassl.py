# SPDX-License-Identifier: Apache-2.0
"""The MetaSSL losses: cross-entropy and Dice that weigh each voxel by its region (arXiv 2509.01144)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .confidences import Confidence
from .cross_entropy_dice import cross_entropy_and_dice, weighted_cross_entropy
from .functional import hard_label
from .normalization import Normalization
from .precision import sum_dtype
from .region_accuracy import RegionAccuracyWeights
from .region_weighted import RegionWeightedLoss, weight_map
from .regions import Mode, Quadripartition, Region
from .shapes import check_shapes
from .thresholds import AdaptiveThreshold, Threshold
from .weights import LABELED_ORDER, UNLABELED_ORDER, Phi, chosen_weights

__all__ = ["MetaSSLLabeledLoss", "MetaSSLUnlabeledLoss"]


class MetaSSLUnlabeledLoss(RegionWeightedLoss):
    r"""Region-weighted cross-entropy against the reference's hard label (MetaSSL, Eq. 5-6, 9-10).

    ``L = scale * (1 / Z) * sum_x W_x * -log softmax(input)_x[label_x]`` with ``Z = sum_x W_x``. The regions compare
    ``argmax(input)`` with the reference's label. Only ``input`` receives gradient.

    Args:
        num_classes: number of classes ``C``, background included.
        delta: step of the weight function (Sec. IV-C4); 0 gives plain mean cross-entropy.
        beta: exponent of the Gaussian weight function.
        threshold: :class:`AdaptiveThreshold` when None.
        scale: factor on the whole loss.
        normalization: ``"total"`` divides by ``Z`` (Eq. 5); ``"region"`` adds up
            ``w_r * sum_(x in r) / (|r| + 1)``, the mean over each region, as the authors' release does.
        phi: weight function, see :class:`RegionWeights`.
        order: regions from the heaviest to the lightest, by default UC > US > DC > DS.
        confidence: see :class:`Quadripartition`.
        mode: see :class:`Quadripartition`.
        weights: weights of UC, US, DC and DS as they are, instead of ``delta``, ``beta``, ``phi`` and ``order``.
        accuracies: measured weights of each region and class, instead of ``weights`` and what those replace. They stay
            at 1 unless :meth:`measure` sees labeled images, as a :class:`~metassl_monai.methods.Method` has it do.

    Attributes:
        regions: :class:`Region` of every voxel in the last call, ``(B, 1, *spatial)`` uint8, detached.
        region_counts: voxels of each region in the last call, inside the mask, shape ``(4,)``.
        foreground_counts: those among them that the reference does not call background, shape ``(4,)``.

    Raises:
        ValueError: when an option is unknown or out of range.

    Example::

        >>> import torch
        >>> from metassl_monai.losses import MetaSSLUnlabeledLoss
        >>> loss = MetaSSLUnlabeledLoss(num_classes=4)
        >>> student, teacher = torch.randn(2, 4, 8, 8, 8, requires_grad=True), torch.randn(2, 4, 8, 8, 8)
        >>> loss(student, teacher).backward()
        >>> loss.regions.shape
        torch.Size([2, 1, 8, 8, 8])
    """

    def __init__(
        self,
        num_classes: int,
        delta: float = 0.6,
        beta: float = 3.0,
        threshold: Threshold | None = None,
        scale: float = 1.0,
        normalization: Normalization = "total",
        phi: Phi = "gaussian",
        order: Sequence[Region] = UNLABELED_ORDER,
        confidence: Confidence = "probability",
        mode: Mode = "quad",
        weights: Sequence[float] | None = None,
        accuracies: RegionAccuracyWeights | None = None,
    ) -> None:
        if accuracies is not None:
            _check_accuracies(accuracies, num_classes, normalization)
        threshold = AdaptiveThreshold(num_classes) if threshold is None else threshold
        partition = Quadripartition(num_classes, threshold, confidence, mode)
        chosen = chosen_weights(mode, delta, beta, phi, order, weights)
        region_weights = chosen if accuracies is None else accuracies
        super().__init__(partition=partition, region_weights=region_weights, scale=scale, normalization=normalization)

    @property
    def measures(self) -> bool:
        """Whether :meth:`measure` is of use: the weights are measured."""
        return isinstance(self.region_weights, RegionAccuracyWeights)

    def forward(
        self, input: Tensor, reference: Tensor, label: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Compute the loss.

        Args:
            input: logits of the prediction, ``(B, C, *spatial)``.
            reference: logits of the reference, same shape; detached here.
            label: hard label of the reference where it is not its argmax, ``(B, 1, *spatial)``.
            mask: non-zero where a voxel counts: in the loss, in ``Z`` and in the thresholds, ``(B, 1, *spatial)``.

        Returns:
            A scalar; 0 when the mask is empty.

        Raises:
            ValueError: when the shapes do not fit.
        """
        check_shapes(input, self.partition.num_classes, reference, label=label, mask=mask)
        label, confidence = self.partition.judge(reference, label)
        regions = self.partition.assign(label, confidence, hard_label(input, None), mask, reference)
        weight = self.normalized_weights(regions, label, mask, sum_dtype(input))
        return self.scale * weighted_cross_entropy(input, label, weight)

    @torch.no_grad()
    def measure(
        self, input: Tensor, target: Tensor, reference: Tensor, label: Tensor | None = None, mask: Tensor | None = None
    ) -> None:
        """Update the accuracies on labeled images, in the regions that they would have if they were unlabeled.

        Args:
            input: see :meth:`forward`.
            target: annotation, class indices, ``(B, 1, *spatial)``.
            reference: see :meth:`forward`.
            label: see :meth:`forward`.
            mask: see :meth:`forward`.

        Raises:
            ValueError: when the loss was built without accuracies, or the shapes do not fit.
        """
        if not isinstance(self.region_weights, RegionAccuracyWeights):
            raise ValueError("this loss measures nothing: build it with accuracies=RegionAccuracyWeights(num_classes).")
        label = hard_label(reference, label)
        # read, since the thresholds follow the unlabeled images alone
        regions = self.partition.read(reference, hard_label(input, None), label)
        self.region_weights.update(regions, label, label == target, mask)


class MetaSSLLabeledLoss(RegionWeightedLoss):
    r"""Region-weighted cross-entropy plus Dice against the annotation (MetaSSL, Eq. 7-8, Sec. III-C).

    The regions compare the reference's label with the *annotation*; the prediction that is trained plays no role in
    them. Cross-entropy and Dice share one weight map and are added without a factor 1/2. Only ``input`` receives
    gradient. Where a single network is trained, pass its own logits as the reference.

    ``L = scale * (cross-entropy + dice)``. The form of the authors' release is :class:`ReleasedLabeledLoss`.

    Args:
        num_classes: number of classes ``C``, background included.
        delta: step of the weight function (Sec. IV-C4); 0 gives plain mean cross-entropy plus soft Dice.
        beta: exponent of the Gaussian weight function.
        threshold: :class:`AdaptiveThreshold` when None.
        scale: factor on the whole loss.
        normalization: of the cross-entropy, see :class:`MetaSSLUnlabeledLoss`; Dice is a ratio and needs none.
        phi: weight function, see :class:`RegionWeights`.
        order: regions from the heaviest to the lightest, by default UC > US > DS > DC.
        confidence: see :class:`Quadripartition`.
        mode: see :class:`Quadripartition`.
        weights: see :class:`MetaSSLUnlabeledLoss`.

    Attributes:
        regions: :class:`Region` of every voxel in the last call, ``(B, 1, *spatial)`` uint8, detached.
        region_counts: voxels of each region in the last call, inside the mask, shape ``(4,)``.
        foreground_counts: those among them that the reference does not call background, shape ``(4,)``.

    Raises:
        ValueError: when an option is unknown or out of range.

    Example::

        >>> import torch
        >>> from metassl_monai.losses import MetaSSLLabeledLoss
        >>> loss = MetaSSLLabeledLoss(num_classes=2)
        >>> logits, target = torch.randn(2, 2, 16, 16, requires_grad=True), torch.randint(0, 2, (2, 1, 16, 16))
        >>> loss(logits, target, reference=logits).backward()
    """

    def __init__(
        self,
        num_classes: int,
        delta: float = 0.3,
        beta: float = 3.0,
        threshold: Threshold | None = None,
        scale: float = 1.0,
        normalization: Normalization = "total",
        phi: Phi = "gaussian",
        order: Sequence[Region] = LABELED_ORDER,
        confidence: Confidence = "probability",
        mode: Mode = "quad",
        weights: Sequence[float] | None = None,
    ) -> None:
        threshold = AdaptiveThreshold(num_classes) if threshold is None else threshold
        super().__init__(
            partition=Quadripartition(num_classes, threshold, confidence, mode),
            region_weights=chosen_weights(mode, delta, beta, phi, order, weights),
            scale=scale,
            normalization=normalization,
        )

    def forward(
        self,
        input: Tensor,
        target: Tensor,
        reference: Tensor,
        label: Tensor | None = None,
        mask: Tensor | None = None,
        ramp: float = 1.0,
    ) -> Tensor:
        """Compute the loss.

        Args:
            input: logits of the prediction, ``(B, C, *spatial)``.
            target: annotation, class indices, ``(B, 1, *spatial)``.
            reference: logits of the reference, same shape as ``input``; detached here.
            label: hard label of the reference where it is not its argmax, ``(B, 1, *spatial)``.
            mask: non-zero where a voxel counts, ``(B, 1, *spatial)``.
            ramp: weight of the unlabeled terms at this step; it has no effect, since Eq. 11 ramps nothing here.

        Returns:
            A scalar; 0 when the mask is empty.

        Raises:
            ValueError: when the shapes do not fit.
        """
        check_shapes(input, self.partition.num_classes, reference, target=target, label=label, mask=mask)
        label, confidence = self.partition.judge(reference, label)
        regions = self.partition.assign(label, confidence, target, mask, reference)
        return self.scale * self.cross_entropy_and_dice(input, target, regions, label, mask)

    def cross_entropy_and_dice(
        self, input: Tensor, target: Tensor, regions: Tensor, label: Tensor, mask: Tensor | None
    ) -> Tensor:
        """The sum of both, weighted by region; ``label`` is that of whose confidence made the regions."""
        weight = self.normalized_weights(regions, label, mask, sum_dtype(input))
        # Dice weighs with the plain weights: the normalizer would only change what eps means
        plain = weight_map(self.region_weights().to(weight.dtype), regions, mask)
        cross_entropy, dice = cross_entropy_and_dice(input, target, weight, plain)
        return cross_entropy + dice


def _check_accuracies(accuracies: RegionAccuracyWeights, num_classes: int, normalization: str) -> None:
    if accuracies.num_classes != num_classes:
        raise ValueError(f"the accuracies have {accuracies.num_classes} classes and num_classes is {num_classes}.")
    if normalization != "total":
        raise ValueError(f"normalization={normalization!r}: accuracies are weights of voxels and need 'total'.")
