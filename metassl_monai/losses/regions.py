# SPDX-License-Identifier: Apache-2.0
"""The quadripartition: which of four regions each voxel of a prediction falls into (MetaSSL, Eq. 1-4)."""

from __future__ import annotations

from enum import IntEnum
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from metassl_monai.options import check_option

from .confidences import CONFIDENCES, Confidence
from .functional import hard_label
from .shapes import check_shapes
from .thresholds import Threshold

__all__ = ["Mode", "Quadripartition", "Region", "kept_regions"]


class Region(IntEnum):
    """Four kinds of voxel, by agreement with the reference and by the reference's confidence (MetaSSL, Sec. III-A).

    The value is ``2 * discrepant + suspicious``, so the two bits can be read off a region map.
    """

    UC = 0
    """Unanimous and confident."""
    US = 1
    """Unanimous and suspicious."""
    DC = 2
    """Discrepant and confident."""
    DS = 3
    """Discrepant and suspicious."""


Mode: TypeAlias = Literal["quad", "confidence", "consistency"]

_KEPT_BITS: dict[Mode, int] = {"quad": 0b11, "confidence": 0b01, "consistency": 0b10}


class Quadripartition(nn.Module):
    """Assign each voxel to one :class:`Region` (MetaSSL, Eq. 1-4).

    A voxel is confident where the confidence of the *reference* is strictly above the threshold of the reference's
    label there, and unanimous where that label equals ``other``. Nothing here receives or passes gradient.

    Args:
        num_classes: number of classes ``C``, background included.
        threshold: a :class:`Threshold` such as :class:`AdaptiveThreshold` or :class:`FixedThreshold`: each partition
            moves it first, ``update(confidence, label, mask, reference)``, and then reads it, ``threshold(label)``.
        confidence: ``"probability"`` is the reference's probability at its label (MetaSSL, Sec. III-A);
            ``"mad"``, ``"variance"`` and ``"std"`` are its dispersion over the classes, scaled to [0, 1] (Table VII).
        mode: ``"quad"``, or one bit of it: ``"confidence"`` gives UC and US, ``"consistency"`` UC and DC (Table IV).

    Raises:
        ValueError: when ``confidence`` or ``mode`` is unknown, or the threshold is for another number of classes.

    Example::

        >>> import torch
        >>> from metassl_monai.losses import FixedThreshold, Quadripartition
        >>> reference = torch.tensor([[.9, .6, .2, .45], [.1, .4, .8, .55]]).log()[None]  # (B=1, C=2, 4 voxels)
        >>> other = torch.tensor([[[0, 0, 0, 0]]])
        >>> Quadripartition(2, FixedThreshold(0.7))(reference, other)
        tensor([[[0, 1, 2, 3]]], dtype=torch.uint8)
    """

    def __init__(
        self, num_classes: int, threshold: Threshold, confidence: Confidence = "probability", mode: Mode = "quad"
    ) -> None:
        super().__init__()
        check_option("confidence", confidence, sorted(CONFIDENCES))
        check_option("mode", mode, sorted(_KEPT_BITS))
        if getattr(threshold, "num_classes", num_classes) != num_classes:
            raise ValueError(f"the threshold has {threshold.num_classes} classes and num_classes is {num_classes}.")
        self.num_classes = num_classes
        self.threshold = threshold
        self.confidence = confidence
        self.mode = mode

    @torch.no_grad()
    def forward(
        self, reference: Tensor, other: Tensor, label: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Partition the voxels.

        Args:
            reference: logits of the reference, ``(B, C, *spatial)``.
            other: class indices compared with the reference's: the prediction's argmax, or the annotation,
                ``(B, 1, *spatial)``.
            label: the reference's hard label where it is not ``argmax(reference)``, ``(B, 1, *spatial)``.
            mask: non-zero where a voxel counts in the statistics of the threshold, ``(B, 1, *spatial)``.

        Returns:
            Region of every voxel, ``(B, 1, *spatial)``, uint8.

        Raises:
            ValueError: when the shapes do not fit each other or ``num_classes``.
        """
        check_shapes(reference, self.num_classes, other=other, label=label, mask=mask)
        label, confidence = self.judge(reference, label)
        return self.assign(label, confidence, other, mask, reference)

    @torch.no_grad()
    def judge(self, reference: Tensor, label: Tensor | None) -> tuple[Tensor, Tensor]:
        """The reference's hard label and how sure it is of it, each ``(B, 1, *spatial)``; see :meth:`forward`."""
        confidence = CONFIDENCES[self.confidence](reference, None if label is None else label.long())
        return hard_label(reference, label), confidence

    @torch.no_grad()
    def assign(
        self, label: Tensor, confidence: Tensor, other: Tensor, mask: Tensor | None, reference: Tensor
    ) -> Tensor:
        """Move the threshold, and return the region of every voxel that was judged; see :meth:`forward`."""
        self.threshold.update(confidence, label, mask, reference)
        return self._regions(label, confidence, other)

    @torch.no_grad()
    def read(self, reference: Tensor, other: Tensor, label: Tensor | None = None) -> Tensor:
        """Partition the voxels by the threshold as it is, without moving it; see :meth:`forward`."""
        check_shapes(reference, self.num_classes, other=other, label=label)
        return self._regions(*self.judge(reference, label), other)

    def _regions(self, label: Tensor, confidence: Tensor, other: Tensor) -> Tensor:
        suspicious, discrepant = confidence <= self.threshold(label), label != other
        code = suspicious.to(torch.uint8) + 2 * discrepant.to(torch.uint8)
        regions: Tensor = code & _KEPT_BITS[self.mode]
        return regions


def kept_regions(mode: Mode) -> tuple[Region, ...]:
    """Return the regions that a :class:`Quadripartition` of this mode assigns."""
    return tuple(region for region in Region if region & ~_KEPT_BITS[mode] == 0)
