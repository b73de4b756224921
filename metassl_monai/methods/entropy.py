# SPDX-License-Identifier: Apache-2.0
"""How unsure a prediction is of each voxel, alike for any number of classes."""

from __future__ import annotations

import math

from torch import Tensor

from metassl_monai.losses.confidences import at_least_float

__all__ = ["normalized_entropy"]


def normalized_entropy(logits: Tensor) -> Tensor:
    """``-sum_c p_c ln p_c / ln C``: 0 where one class has all probability, 1 where all are alike.

    The division makes limits that papers state for two classes, in parts of the largest entropy ln 2, hold for any
    number of classes.

    Args:
        logits: ``(B, C, *spatial)``, with ``C > 1``. Carries gradient.

    Returns:
        ``(B, 1, *spatial)``, at least float32.

    Example::

        >>> import torch
        >>> from metassl_monai.methods.entropy import normalized_entropy
        >>> normalized_entropy(torch.zeros(1, 4, 1, 1)).item()
        1.0
    """
    log_p = at_least_float(logits).log_softmax(dim=1)
    return -(log_p.exp() * log_p).sum(dim=1, keepdim=True) / math.log(logits.shape[1])
