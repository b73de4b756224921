# SPDX-License-Identifier: Apache-2.0
"""Maps of classes and codes: the likeliest class of a voxel, numbers and sums of voxels by class.

On a CPU each is several times as fast as the one line that it stands for; on a GPU, and when it is compiled, it is that
line, or masks instead of ``bincount``, which would wait for the device.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .precision import at_least_float

__all__ = ["class_sums", "histogram", "likeliest_class", "look_up"]


def likeliest_class(logits: Tensor) -> Tensor:
    """``logits.max(1, keepdim=True).indices``: the first class with the largest logit.

    Args:
        logits: ``(B, C, *spatial)``.

    Returns:
        Class indices, ``(B, 1, *spatial)``.
    """
    if _elsewhere(logits):
        return logits.max(dim=1, keepdim=True).indices
    # the number of classes before the first one that reaches the maximum
    logits = at_least_float(logits)
    classes, largest = logits.shape[1], logits.amax(dim=1, keepdim=True)
    smaller = torch.empty_like(largest, dtype=torch.bool)
    before = torch.ones_like(largest, dtype=torch.uint8)
    count = torch.zeros_like(largest, dtype=torch.uint8 if classes <= 256 else torch.int64)
    for c in range(classes - 1):
        torch.lt(logits[:, c : c + 1], largest, out=smaller)
        count += before.bitwise_and_(smaller.view(torch.uint8))
    return count.long()


def look_up(table: Tensor, codes: Tensor) -> Tensor:
    """``table[codes]``, of the shape of ``codes``.

    Args:
        table: shape ``(K,)``.
        codes: indices, int32 or int64, any shape.
    """
    return table.index_select(0, codes.flatten()).view(codes.shape)


def histogram(codes: Tensor, bins: int) -> Tensor:
    """Number of voxels of each code.

    Args:
        codes: integers from 0 to ``bins - 1``, any shape.
        bins: number of codes.

    Returns:
        Counts, shape ``(bins,)``, int64.
    """
    if _elsewhere(codes):
        return torch.stack([(codes == code).sum() for code in range(bins)])
    return torch.bincount(codes.flatten(), minlength=bins)


def class_sums(values: Tensor, label: Tensor, classes: int) -> Tensor:
    """Sum of the values of each class.

    Args:
        values: any shape.
        label: class indices, same shape.
        classes: number of classes.

    Returns:
        Sums, shape ``(classes,)``, of the dtype of ``values``.
    """
    if _elsewhere(values):
        return torch.stack([(values * (label == c)).sum() for c in range(classes)])
    # one after the other would add up rounding errors in float32
    sums = values.new_zeros(classes, dtype=torch.float64)
    return sums.scatter_add_(0, label.flatten(), values.flatten().double()).to(values.dtype)


def _elsewhere(values: Tensor) -> bool:
    return values.device.type != "cpu" or torch.compiler.is_compiling()
