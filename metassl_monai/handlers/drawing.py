# SPDX-License-Identifier: Apache-2.0
"""From tensors to a file with a figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from metassl_monai.files import atomic_write
from metassl_monai.report.contours import shown_slices

__all__ = ["planes", "write_figure"]


def planes(
    maps: Sequence[Tensor | None], structures: Tensor, count: int
) -> list[tuple[str, tuple[np.ndarray | None, ...]]]:
    """Cut maps of one sample into the planes to draw: an image as a whole, a volume into slices of its last axis.

    Args:
        maps: all ``(H, W)`` or ``(H, W, D)``, or None.
        structures: where there is something to see, of the same shape; slices are spread over it.
        count: number of slices of a volume.

    Returns:
        The name of each plane, empty of an image, and the planes of the maps.
    """
    arrays = [None if it is None else it.detach().to("cpu", torch.float32).numpy() for it in maps]
    if structures.ndim == 2:
        return [("", tuple(arrays))]
    depth = structures.shape[-1]
    return [
        (f"slice {number + 1} of {depth}", tuple(None if it is None else it[..., number] for it in arrays))
        for number in shown_slices(structures.cpu().numpy(), count)
    ]


def write_figure(figure: Figure, path: Path) -> None:
    """Write a PNG, whole or not at all."""
    with atomic_write(path, "wb") as file:
        figure.savefig(file, format="png", dpi=120)
