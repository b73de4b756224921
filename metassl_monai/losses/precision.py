# SPDX-License-Identifier: Apache-2.0
"""The precision in which the losses compute."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["at_least_float", "sum_dtype"]


def at_least_float(x: Tensor) -> Tensor:
    """Half precision is too coarse for sums over voxels: compute in float32, or in float64 where that comes in."""
    return x.to(sum_dtype(x))


def sum_dtype(x: Tensor) -> torch.dtype:
    """The dtype of :func:`at_least_float`."""
    return torch.float32 if x.element_size() < 4 else x.dtype
