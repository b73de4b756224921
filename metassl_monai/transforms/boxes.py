# SPDX-License-Identifier: Apache-2.0
"""Boxes as masks, and what holds for the mask of a last draw."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["Box", "box_masks", "fitting_mask"]

Box = tuple[slice, ...]
"""One slice a spatial axis."""


def box_masks(boxes: Sequence[Box], spatial: Sequence[int], device: torch.device | str | None = None) -> Tensor:
    """Paint each box on a mask of its own, on ``device``, which the host does not wait for.

    Args:
        boxes: one box a sample.
        spatial: sides of the sample.
        device: where the masks are made.

    Returns:
        True inside the box, ``(len(boxes), 1, *spatial)``, bool.

    Example::

        >>> from metassl_monai.transforms.boxes import box_masks
        >>> box_masks([(slice(1, 3),), (slice(0, 0),)], (4,)).int()
        tensor([[[0, 1, 1, 0]],
        <BLANKLINE>
                [[0, 0, 0, 0]]], dtype=torch.int32)
    """
    masks = torch.zeros(len(boxes), 1, *spatial, dtype=torch.bool, device=device)
    for mask, box in zip(masks, boxes, strict=True):
        mask[(slice(None), *box)] = True
    return masks


def fitting_mask(mask: Tensor | None, batch: Tensor) -> Tensor:
    """Return the mask ``(B, 1, *spatial)`` of the last draw on the device of ``batch``, ``(B, C, *spatial)``.

    Raises:
        ValueError: when there was no draw, or it was for another batch size or spatial shape.
    """
    if mask is None:
        raise ValueError("randomize=False repeats the last draw, and there is none yet.")
    if mask.shape != (len(batch), 1, *batch.shape[2:]):
        drawn = (len(mask), "channels", *mask.shape[2:])
        raise ValueError(f"the batch has shape {tuple(batch.shape)}, and the last draw is for {drawn}.")
    return mask.to(batch.device)
