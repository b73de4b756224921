# SPDX-License-Identifier: Apache-2.0
"""What ALHVR computes from logits and features: regions, the teacher, and the terms of prototypes."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from metassl_monai.losses.confidences import confidence
from metassl_monai.losses.functional import cross_entropy_map, masked_mean

__all__ = ["Regions", "mean_of_lowest", "prototype_terms", "surer"]


class Regions(NamedTuple):
    """Which of two predictions is sure of a voxel, each ``(B, 1, *spatial)`` boolean (Eq. 12-14)."""

    first: Tensor
    second: Tensor

    def inside(self, name: str) -> Tensor:
        """Where ``"omega1"``: both, ``"omega2"``: one alone, ``"omega3"``: none of the two is sure."""
        masks = {
            "omega1": self.first & self.second,
            "omega2": self.first ^ self.second,
            "omega3": ~(self.first | self.second),
        }
        return masks[name]

    @classmethod
    def of(cls, first: Tensor, second: Tensor, beta: float) -> Regions:
        """Compare the confidences of two predictions, logits ``(B, C, *spatial)``, with one threshold (Eq. 11)."""
        sure = confidence(first), confidence(second)
        threshold = mean_of_lowest((sure[0] + sure[1]) / 2, beta)
        return cls(sure[0] >= threshold, sure[1] >= threshold)


def mean_of_lowest(values: Tensor, share: float) -> Tensor:
    """Mean of the lowest ``share`` of all values, a scalar (ALHVR, Eq. 11).

    Example::

        >>> import torch
        >>> from metassl_monai.methods.alhvr_terms import mean_of_lowest
        >>> round(mean_of_lowest(torch.tensor([0.9, 0.1, 0.95, 0.2, 0.3]), 0.8).item(), 4)
        0.375
    """
    count = max(1, round(share * values.numel()))
    return values.flatten().topk(count, largest=False, sorted=False).values.mean()


def surer(first: Tensor, second: Tensor) -> Tensor:
    """Logits of the network that is surer of a voxel, the first where both are alike (the teacher, Eq. 21)."""
    return torch.where(confidence(first) >= confidence(second), first, second)


def prototype_terms(
    similarity: Tensor, present: Tensor, label: Tensor, mask: Tensor, all_classes: bool = False
) -> tuple[Tensor, Tensor]:
    """Cross-entropy with cosines as logits, and distance to the prototypes (Eq. 19-20).

    Args:
        similarity: cosines, ``(B, C, *spatial)``.
        present: which classes have a prototype, ``(C,)``; the others do not compete.
        label: class indices of present classes, ``(B, 1, *spatial)``.
        mask: where the terms count, ``(B, 1, *spatial)``.
        all_classes: take the distance to the prototypes of all classes, not of the label's alone.

    Returns:
        Two means over the mask.
    """
    absent = ~present.view(1, -1, *[1] * (similarity.ndim - 2))
    cross_entropy = cross_entropy_map(similarity.masked_fill(absent, -torch.inf), label)
    near = similarity.mean(dim=1, keepdim=True) if all_classes else similarity.gather(1, label)
    return masked_mean(cross_entropy, mask), masked_mean(1 - near, mask)
