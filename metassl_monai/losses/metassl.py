# SPDX-License-Identifier: Apache-2.0
"""The MetaSSL losses: cross-entropy and Dice that weigh each voxel by its region (arXiv 2509.01144)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.loss import _Loss

from .functional import WEIGHT_FLOOR, cross_entropy_map, soft_dice
from .regions import Quadripartition, Region, kept_regions
from .shapes import check_shapes
from .thresholds import AdaptiveThreshold
from .weights import LABELED_ORDER, UNLABELED_ORDER, RegionWeights

__all__ = ["MetaSSLLabeledLoss", "MetaSSLUnlabeledLoss"]

_NORMALIZATIONS = ("total", "region")


class _RegionWeightedLoss(_Loss):
    """What the two MetaSSL losses share: the partition, its weights and their normalization."""

    def __init__(
        self,
        num_classes: int,
        delta: float,
        beta: float,
        threshold: nn.Module | None,
        scale: float,
        normalization: str,
        phi: str,
        order: Sequence[Region],
        confidence: str,
        mode: str,
    ) -> None:
        super().__init__()
        if normalization not in _NORMALIZATIONS:
            raise ValueError(f"normalization={normalization!r} is unknown: choose one of {_NORMALIZATIONS}.")
        threshold = AdaptiveThreshold(num_classes) if threshold is None else threshold
        self.partition = Quadripartition(num_classes, threshold, confidence, mode)
        # a bisection weighs its two regions with phi(0) and phi(delta): what it never assigns ranks last
        kept = kept_regions(mode)
        self.region_weights = RegionWeights(delta, beta, phi, sorted(order, key=lambda region: region not in kept))
        self.scale = scale
        self.normalization = normalization
        self.regions: Tensor | None = None
        self.region_counts: Tensor | None = None

    @torch.no_grad()
    def _region_table(self, regions: Tensor, mask: Tensor | None, dtype: torch.dtype) -> Tensor:
        """Weight of one voxel of each region, shape (4,), normalized so that weighted sums are the loss."""
        counts = []
        for code in range(len(Region)):  # torch.compile takes `tensor == enum member` for False
            inside = regions == code if mask is None else (regions == code) & (mask != 0)
            counts.append(inside.sum(dtype=dtype))
        self.regions, self.region_counts = regions, torch.stack(counts)
        weights = self.region_weights().to(dtype)
        if self.normalization == "region":
            return weights / (self.region_counts + 1)
        return weights / (weights * self.region_counts).sum().clamp_min(WEIGHT_FLOOR)


def _weight_map(table: Tensor, regions: Tensor, mask: Tensor | None) -> Tensor:
    """Look up the weight of every voxel; 0 outside the mask."""
    weight = table.take(regions.long())
    return weight if mask is None else torch.where(mask != 0, weight, 0)


class MetaSSLUnlabeledLoss(_RegionWeightedLoss):
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

    Attributes:
        regions: :class:`Region` of every voxel in the last call, ``(B, 1, *spatial)`` uint8, detached.
        region_counts: voxels of each region in the last call, inside the mask, shape ``(4,)``.

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
    ) -> None:
        super().__init__(num_classes, delta, beta, threshold, scale, normalization, phi, order, confidence, mode)

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
        reference = reference.detach()
        if label is None:
            label = reference.max(dim=1, keepdim=True).indices
        label = label.long()
        regions = self.partition(reference, input.detach().max(dim=1, keepdim=True).indices, label, mask)
        cross_entropy = cross_entropy_map(input, label)
        table = self._region_table(regions, mask, cross_entropy.dtype)
        return self.scale * (_weight_map(table, regions, mask) * cross_entropy).sum()


class MetaSSLLabeledLoss(_RegionWeightedLoss):
    r"""Region-weighted cross-entropy plus Dice against the annotation (MetaSSL, Eq. 7-8, Sec. III-C).

    The regions compare the reference's label with the *annotation*; the prediction that is trained plays no role in
    them. Cross-entropy and Dice share one weight map and are added without a factor 1/2. Only ``input`` receives
    gradient. Where a single network is trained, pass its own logits as the reference.

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

    Attributes:
        regions: :class:`Region` of every voxel in the last call, ``(B, 1, *spatial)`` uint8, detached.
        region_counts: voxels of each region in the last call, inside the mask, shape ``(4,)``.

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
    ) -> None:
        super().__init__(num_classes, delta, beta, threshold, scale, normalization, phi, order, confidence, mode)

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
            ramp: weight of the unlabeled terms at this step. Eq. 11 ramps nothing of the labeled loss, so it has no
                effect here; losses that do ramp a part of theirs are called with the same arguments.

        Returns:
            A scalar; 0 when the mask is empty.

        Raises:
            ValueError: when the shapes do not fit.
        """
        check_shapes(input, self.partition.num_classes, reference, target=target, label=label, mask=mask)
        regions = self.partition(reference, target, label, mask)
        cross_entropy = cross_entropy_map(input, target)
        table = self._region_table(regions, mask, cross_entropy.dtype)
        weighted = (_weight_map(table, regions, mask) * cross_entropy).sum()
        # Dice weighs with the plain weights: the normalizer would only change what eps means
        weight = _weight_map(self.region_weights().to(cross_entropy.dtype), regions, mask)
        return self.scale * (weighted + soft_dice(input, target, weight))
