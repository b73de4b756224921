# SPDX-License-Identifier: Apache-2.0
"""Maps of classes and codes: the likeliest class of a voxel, numbers and sums of voxels by class.

On a CPU each is several times as fast as the one line that it stands for; on a GPU, and when it is compiled, it is that
line, or masks instead of ``bincount``, which would wait for the device.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["class_sums", "histogram", "likeliest_class"]


def likeliest_class(logits: Tensor) -> Tensor:
    """``logits.max(1, keepdim=True).indices``: the first class with the largest logit.

    Args:
        logits: ``(B, C, *spatial)``.

    Returns:
        Class indices, ``(B, 1, *spatial)``.
    """
    classes = logits.shape[1]
    if _elsewhere(logits) or classes > 255:
        return logits.max(dim=1, keepdim=True).indices
    ranks = torch.arange(classes, 0, -1, dtype=torch.uint8).view(1, -1, *[1] * (logits.ndim - 2))
    first = ((logits == logits.amax(dim=1, keepdim=True)) * ranks).amax(dim=1, keepdim=True)
    # NaN equals nothing: any class will do there
    return (classes - first.clamp_min(1)).long()


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
