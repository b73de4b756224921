# SPDX-License-Identifier: Apache-2.0
"""What ALHVR computes from logits and features: regions, the teacher, prototypes and the terms that use them."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from metassl_monai.losses.functional import cross_entropy_map, masked_mean
from metassl_monai.losses.precision import at_least_float

__all__ = ["Prototypes", "Regions", "confidence", "cosines", "mean_of_lowest", "prototype_terms", "surer"]


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


@torch.no_grad()
def confidence(logits: Tensor) -> Tensor:
    """Largest probability of each voxel, ``(B, 1, *spatial)``, without gradient."""
    return at_least_float(logits).softmax(dim=1).amax(dim=1, keepdim=True)


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


class Prototypes(NamedTuple):
    """The mean feature of each class."""

    vectors: Tensor
    """Of unit length, ``(C, channels)``; zero for an absent class."""
    present: Tensor
    """Boolean, ``(C,)``."""

    @classmethod
    def of(cls, features: Tensor, label: Tensor, num_classes: int) -> Prototypes:
        """Pool features over all voxels of a class in the batch (Eq. 15).

        Args:
            features: ``(B, channels, *coarse)``; interpolated to the size of the label.
            label: class indices, ``(B, 1, *spatial)``.
            num_classes: number of classes ``C``.
        """
        classes = torch.arange(num_classes, device=label.device).view(1, -1, 1)
        # half precision, to which autocast would turn the product, cannot hold the sum over so many voxels
        with torch.autocast(features.device.type, enabled=False):
            fine = _resized(features, label)
            inside = (label.flatten(2) == classes).to(fine.dtype)
            sums = torch.einsum("bdn,bcn->cd", fine.flatten(2), inside)
        return cls(F.normalize(sums, dim=1), inside.sum(dim=(0, 2)) > 0)


def cosines(features: Tensor, prototypes: Prototypes, label: Tensor) -> Tensor:
    """Cosine of each voxel's feature with each prototype (Eq. 16).

    Args:
        features: ``(B, channels, *coarse)``; interpolated to the size of the label.
        prototypes: of ``C`` classes.
        label: ``(B, 1, *spatial)``.

    Returns:
        ``(B, C, *spatial)``, at least float32; 0 for an absent class.
    """
    with torch.autocast(features.device.type, enabled=False):
        fine = _resized(features, label)
        products = torch.einsum("bdn,cd->bcn", fine.flatten(2), prototypes.vectors)
    length = fine.square().sum(dim=1, keepdim=True).clamp_min(1e-12).sqrt()
    return products.unflatten(2, fine.shape[2:]) / length


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


def _resized(features: Tensor, like: Tensor) -> Tensor:
    features = at_least_float(features)
    size = like.shape[2:]
    mode = ("linear", "bilinear", "trilinear")[len(size) - 1]
    return features if features.shape[2:] == size else F.interpolate(features, size, mode=mode, align_corners=False)
