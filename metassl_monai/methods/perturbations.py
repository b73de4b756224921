# SPDX-License-Identifier: Apache-2.0
"""Perturbations of a feature map ``(B, C, *spatial)`` for auxiliary decoders (Ouali et al., CCT, CVPR 2020)."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["PERTURBATIONS", "feature_dropout", "feature_noise", "most_active_dropout"]


def feature_noise(x: Tensor, limit: float = 0.3) -> Tensor:
    """Multiply by ``1 + u`` with ``u`` uniform in ``[-limit, limit]``, one draw for the whole batch (F-Noise)."""
    return x * (1 + torch.empty_like(x[0]).uniform_(-limit, limit))


def feature_dropout(x: Tensor, rate: float = 0.3) -> Tensor:
    """Drop single values, in evaluation mode too: it is part of the method (DropOut)."""
    return F.dropout(x, rate, training=True)


def most_active_dropout(x: Tensor, low: float = 0.7, high: float = 0.9) -> Tensor:
    """Zero where the mean over the channels reaches a share, drawn in [low, high], of its image's maximum (F-Drop)."""
    attention = x.mean(dim=1, keepdim=True)
    share = torch.empty(1, device=x.device).uniform_(low, high)
    return x * (attention < share * attention.amax(dim=list(range(1, x.ndim)), keepdim=True))


PERTURBATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "noise": feature_noise,
    "dropout": feature_dropout,
    "most_active": most_active_dropout,
}
