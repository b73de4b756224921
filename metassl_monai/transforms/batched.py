# SPDX-License-Identifier: Apache-2.0
"""MONAI's random dictionary transforms, applied to whole batches where they lie."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from monai.transforms import Compose, EnsureTyped, Randomizable, RandSpatialCropd
from torch import Tensor

from . import batch_spatial
from .batch_steps import Batch, Move, Step, batch_step

__all__ = ["BatchTransform"]


class BatchTransform(Randomizable):
    """Do to a batch, ``(B, C, *spatial)`` a key, what a chain of MONAI's random transforms does to each sample.

    Every sample draws for itself, from the same distributions as in the chain, though other numbers. Flips, turns and
    at most one affine map in a row are one resampling. Numbers come from NumPy and are sent to the device, noise is
    made there; nothing waits for the device.

    Args:
        transform: a transform, or a ``Compose`` of them: ``RandSpatialCropd`` at the beginning, ``RandFlipd``,
            ``RandRotate90d``, ``RandRotated``, ``RandAffined``, ``OneOf`` and ``Identityd`` of these,
            ``RandAdjustContrastd``, ``RandGaussianSmoothd``, ``RandGaussianNoised``, :class:`WeakStrongViewsd` with its
            own strong view, ``EnsureTyped``.

    Attributes:
        roi_size: size of the patch that the chain begins with, or None; whoever makes the batch cuts it.

    Raises:
        ValueError: when the chain holds a transform, or an option of one, that is not among these.

    Example::

        >>> import torch
        >>> from monai.transforms import Compose, RandFlipd, RandGaussianNoised
        >>> from metassl_monai.transforms import BatchTransform
        >>> chain = Compose([RandFlipd(["image", "label"], prob=1.0, spatial_axis=0), RandGaussianNoised("image")])
        >>> images = torch.arange(4.0).view(1, 1, 2, 2).repeat(3, 1, 1, 1)
        >>> BatchTransform(chain)({"image": images, "label": images})["label"][2, 0].tolist()
        [[2.0, 3.0], [0.0, 1.0]]
    """

    def __init__(self, transform: Callable[..., Any] | None) -> None:
        chain = list(Compose(transform).flatten().transforms) if transform is not None else []
        self.roi_size: Sequence[int] | None = None
        if chain and isinstance(chain[0], RandSpatialCropd):
            self.roi_size = _roi_size(chain.pop(0))
        self.steps = _joined([batch_step(each) for each in chain if not isinstance(each, EnsureTyped)])

    def randomize(self, data: Any = None) -> None:
        """Draw nothing: each step draws when it is called."""

    def __call__(self, batch: Mapping[Any, Tensor]) -> Batch:
        """Return the transformed batch, in float32."""
        changed = dict(batch)
        for step in self.steps:
            changed = step(self.R, changed)
        return changed


def _joined(steps: Sequence[Move | Step]) -> list[Step]:
    """Make one resampling of moves in a row, of which at most one interpolates."""
    result: list[Step] = []
    row: list[Move] = []
    for step in [*steps, None]:
        joins = isinstance(step, Move) and all(move.keys == step.keys for move in row)
        if row and not (joins and not (step.modes and any(move.modes for move in row))):  # type: ignore[union-attr]
            result.append(partial(_resample, row))
            row = []
        if isinstance(step, Move):
            row.append(step)
        elif step is not None:
            result.append(step)
    return result


def _resample(moves: Sequence[Move], random: np.random.RandomState, batch: Batch) -> Batch:
    keys = moves[0].keys
    first = next((batch[key] for key in keys if key in batch), None)
    if first is None:
        return batch
    interpolating = next((move for move in moves if move.modes), None)
    modes = interpolating.modes if interpolating else ["nearest"] * len(keys)
    padding = interpolating.padding if interpolating else "border"
    matrices = batch_spatial.unmoved(random, len(first), first.shape[2:])
    for move in moves:
        matrices = matrices @ move.draw(random, len(first), first.shape[2:])
    return batch_spatial.resample(batch, matrices, dict(zip(keys, modes, strict=True)), padding)


def _roi_size(transform: RandSpatialCropd) -> Sequence[int]:
    cropper: Any = transform.cropper
    if cropper.random_size or not cropper.random_center:
        raise ValueError("RandSpatialCropd is known for batches with random_size=False and random_center=True.")
    size: Sequence[int] = cropper.roi_size
    return size
