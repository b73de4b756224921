# SPDX-License-Identifier: Apache-2.0
"""The MetaSSL losses: cross-entropy and Dice that weigh each voxel by its region (arXiv 2509.01144)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .confidences import sum_dtype
from .cross_entropy_dice import cross_entropy_and_dice, weighted_cross_entropy
from .functional import hard_label
from .region_accuracy import RegionAccuracyWeights
from .region_weighted import RegionWeightedLoss, weight_map
from .regions import Region
from .shapes import check_shapes
from .weights import LABELED_ORDER, UNLABELED_ORDER

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
        unanimous: with ``normalization="region"``, ``"split"`` takes the means of UC over the voxels that the reference
            calls background and over the others, apart, so that the background does not drown them. ``"released"``
            counts the background's twice and the others' not at all, a slip of the authors' 2D release.
        accuracies: measured weights of each region and class, instead of ``weights`` and what those replace. They stay
            at 1 unless a :class:`MetaSSLLabeledLoss` measures them (its ``accuracies_of``).

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
        threshold: nn.Module | None = None,
        scale: float = 1.0,
        normalization: str = "total",
        phi: str = "gaussian",
        order: Sequence[Region] = UNLABELED_ORDER,
        confidence: str = "probability",
        mode: str = "quad",
        weights: Sequence[float] | None = None,
        unanimous: str = "joint",
        accuracies: RegionAccuracyWeights | None = None,
    ) -> None:
        super().__init__(
            num_classes, delta, beta, threshold, scale, normalization, phi, order, confidence, mode, weights, unanimous
        )
        if accuracies is None:
            return
        if accuracies.num_classes != num_classes:
            raise ValueError(f"the accuracies have {accuracies.num_classes} classes and num_classes is {num_classes}.")
        if normalization != "total":
            raise ValueError(f"normalization={normalization!r}: accuracies are weights of voxels and need 'total'.")
        self.region_weights = accuracies

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
        label = hard_label(reference, label)
        regions = self.partition(reference, hard_label(input, None), label, mask)
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
        threshold = self.partition.threshold
        training = threshold.training
        threshold.eval()  # the thresholds follow the unlabeled images alone
        regions = self.partition(reference, hard_label(input, None), label, mask)
        threshold.train(training)
        self.region_weights.update(regions, label, label == target, mask)


class MetaSSLLabeledLoss(RegionWeightedLoss):
    r"""Region-weighted cross-entropy plus Dice against the annotation (MetaSSL, Eq. 7-8, Sec. III-C).

    The regions compare the reference's label with the *annotation*; the prediction that is trained plays no role in
    them. Cross-entropy and Dice share one weight map and are added without a factor 1/2. Only ``input`` receives
    gradient. Where a single network is trained, pass its own logits as the reference.

    ``L = base + scale * (cross-entropy + dice)``. The authors' release has another form, which the last five arguments
    spell out: regions from the confidence of the trained network itself and its agreement with its partner, no
    weighted Dice, all of it ramped, and added to a plain supervised loss.

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
        unanimous: see :class:`MetaSSLUnlabeledLoss`.
        judge: whose confidence and label make the regions: the ``"reference"``'s, or the ``input``'s own (``"self"``).
        discrepancy: what the judge's label is compared with: the ``"annotation"``, or the label of the other one of
            input and reference (``"pair"``).
        dice: add the weighted Dice.
        ramped: multiply the weighted part by the ramp.
        base: a plain loss beside it, called as ``base(input, target, mask=mask)``.
        accuracies_of: unlabeled loss whose :class:`RegionAccuracyWeights` each call in training mode updates.

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
        threshold: nn.Module | None = None,
        scale: float = 1.0,
        normalization: str = "total",
        phi: str = "gaussian",
        order: Sequence[Region] = LABELED_ORDER,
        confidence: str = "probability",
        mode: str = "quad",
        weights: Sequence[float] | None = None,
        unanimous: str = "joint",
        judge: str = "reference",
        discrepancy: str = "annotation",
        dice: bool = True,
        ramped: bool = False,
        base: nn.Module | None = None,
        accuracies_of: MetaSSLUnlabeledLoss | None = None,
    ) -> None:
        super().__init__(
            num_classes, delta, beta, threshold, scale, normalization, phi, order, confidence, mode, weights, unanimous
        )
        for name, value, known in (
            ("judge", judge, ("reference", "self")),
            ("discrepancy", discrepancy, ("annotation", "pair")),
        ):
            if value not in known:
                raise ValueError(f"{name}={value!r} is unknown: choose one of {known}.")
        self.judge = judge
        self.discrepancy = discrepancy
        self.dice = dice
        self.ramped = ramped
        self.base = base
        self.accuracies_of = accuracies_of

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
            ramp: weight of the unlabeled terms at this step; no effect unless ``ramped`` (Eq. 11 ramps nothing here).

        Returns:
            A scalar; 0 when the mask is empty.

        Raises:
            ValueError: when the shapes do not fit.
        """
        check_shapes(input, self.partition.num_classes, reference, target=target, label=label, mask=mask)
        judge, judge_label, other = self._judged(input, target, reference, label)
        regions = self.partition(judge, other, judge_label, mask)
        weight = self.normalized_weights(regions, judge_label, mask, sum_dtype(input))
        if self.dice:
            # Dice weighs with the plain weights: the normalizer would only change what eps means
            plain = weight_map(self.region_weights().to(weight.dtype), regions, mask)
            cross_entropy, dice = cross_entropy_and_dice(input, target, weight, plain)
            loss = cross_entropy + dice
        else:
            loss = weighted_cross_entropy(input, target, weight)
        if self.training and self.accuracies_of is not None:
            self.accuracies_of.measure(input, target, reference, label, mask)
        loss = self.scale * (ramp if self.ramped else 1.0) * loss
        return loss if self.base is None else loss + self.base(input, target, mask=mask)

    def _judged(
        self, input: Tensor, target: Tensor, reference: Tensor, label: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Whose confidence counts, its label, and the label that this one is compared with."""
        annotated = self.discrepancy == "annotation"
        if self.judge == "self":
            return input.detach(), hard_label(input, None), target if annotated else hard_label(reference, label)
        return reference.detach(), hard_label(reference, label), target if annotated else hard_label(input, None)
