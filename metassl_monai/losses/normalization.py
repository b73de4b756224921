# SPDX-License-Identifier: Apache-2.0
"""From the weights of the regions to the weight of one voxel: what a region-weighted loss is divided by.

A normalizer is called as ``normalizer(weights, background, foreground)`` with the weights of the regions and the
numbers of their voxels, apart by whether the reference calls a voxel background; all of shape ``(4,)``. It returns the
weight of one voxel, shape ``(8,)``: of the background of each region, then of the foreground of each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from .functional import WEIGHT_FLOOR

__all__ = ["NORMALIZERS", "UNANIMOUS", "Normalization", "Normalizer", "Unanimous"]

Normalization: TypeAlias = Literal["total", "region"]
Unanimous: TypeAlias = Literal["joint", "split", "released"]
Normalizer: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]


def _total(weights: Tensor, background: Tensor, foreground: Tensor) -> Tensor:
    """One sum for all regions (MetaSSL, Eq. 5)."""
    return (weights / (weights * (background + foreground)).sum().clamp_min(WEIGHT_FLOOR)).repeat(2)


def _joint(weights: Tensor, background: Tensor, foreground: Tensor) -> Tensor:
    """Each region by its own size, as in the authors' release."""
    return (weights / (background + foreground + 1)).repeat(2)


def _split(weights: Tensor, background: Tensor, foreground: Tensor) -> Tensor:
    """Each region by its own size, background and foreground of UC apart."""
    joint = weights / (background + foreground + 1)
    unanimous = weights[0] / (torch.stack([background[0], foreground[0]]) + 1)
    return torch.cat([unanimous[:1], joint[1:], unanimous[1:], joint[1:]])


def _released(weights: Tensor, background: Tensor, foreground: Tensor) -> Tensor:
    """The slip of the authors' 2D release: the background of UC counts twice and its foreground not at all."""
    table = _split(weights, background, foreground)
    return table * table.new_tensor([2, 1, 1, 1, 0, 1, 1, 1])


NORMALIZERS: dict[Normalization, Normalizer] = {"total": _total, "region": _joint}
UNANIMOUS: dict[Unanimous, Normalizer] = {"joint": _joint, "split": _split, "released": _released}
