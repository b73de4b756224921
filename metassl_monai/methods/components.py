# SPDX-License-Identifier: Apache-2.0
"""Clean-up of pseudo-labels."""

from __future__ import annotations

import torch
from monai.transforms import KeepLargestConnectedComponent
from monai.utils import convert_to_tensor
from torch import Tensor

__all__ = ["largest_components"]


def largest_components(label: Tensor, num_classes: int) -> Tensor:
    """Keep the largest connected component of each foreground class of each sample; the rest becomes background.

    Args:
        label: class indices, ``(B, 1, *spatial)``; diagonal neighbors are connected.
        num_classes: number of classes, background included.

    Returns:
        The cleaned class indices, same shape, dtype and device.

    Example::

        >>> import torch
        >>> from metassl_monai.methods.components import largest_components
        >>> largest_components(torch.tensor([[[[1, 1, 0, 1]]]]), num_classes=2)
        tensor([[[[1, 1, 0, 0]]]])
    """
    keep = KeepLargestConnectedComponent(applied_labels=list(range(1, num_classes)), is_onehot=False)
    # the transform works in place and returns tensors with metadata
    cleaned = [convert_to_tensor(keep(sample.clone()), track_meta=False) for sample in label]
    return torch.stack(cleaned).to(label)
