# SPDX-License-Identifier: Apache-2.0
"""The mean feature of each class, and how near features are to it."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from metassl_monai.losses.precision import at_least_float

__all__ = ["Prototypes", "cosines"]


class Prototypes(NamedTuple):
    """The mean feature of each class."""

    vectors: Tensor
    """Of unit length, ``(C, channels)``; zero for an absent class."""
    present: Tensor
    """Boolean, ``(C,)``."""

    @classmethod
    def of(cls, features: Tensor, label: Tensor, num_classes: int) -> Prototypes:
        """Pool features over all voxels of a class in the batch (ALHVR, Eq. 15).

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
    """Cosine of each voxel's feature with each prototype (ALHVR, Eq. 16).

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
    similarity: Tensor = products.unflatten(2, fine.shape[2:]) / length
    return similarity


def _resized(features: Tensor, like: Tensor) -> Tensor:
    features = at_least_float(features)
    size = like.shape[2:]
    mode = ("linear", "bilinear", "trilinear")[len(size) - 1]
    return features if features.shape[2:] == size else F.interpolate(features, size, mode=mode, align_corners=False)
