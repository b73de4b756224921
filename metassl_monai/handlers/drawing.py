# SPDX-License-Identifier: Apache-2.0
"""From tensors to a file with a figure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from metassl_monai.files import atomic_write

__all__ = ["middle_plane", "write_figure"]


def middle_plane(values: Tensor) -> np.ndarray:
    """Return an image ``(H, W)`` as it is, and of a volume the middle of its last axis."""
    if values.ndim == 3:
        values = values[..., values.shape[-1] // 2]
    return values.detach().to("cpu", torch.float32).numpy()


def write_figure(figure: Figure, path: Path) -> None:
    """Write a PNG, whole or not at all."""
    with atomic_write(path, "wb") as file:
        figure.savefig(file, format="png", dpi=120)
