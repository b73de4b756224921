# SPDX-License-Identifier: Apache-2.0
"""A crop whose place is given in fractions of the image, so that one box serves images of all sizes."""

from __future__ import annotations

import math
from collections.abc import Sequence

from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import Crop, Cropd
from torch import Tensor

__all__ = ["RelativeCrop", "RelativeCropD", "RelativeCropDict", "RelativeCropd"]

ROUNDING = 1e-6


class RelativeCrop(Crop):
    """Crop a channel-first image to a box given in fractions of its axes; ``inverse`` pads it back with zeros.

    The box is rounded outward to whole voxels and then enlarged, evenly at both ends as far as the image goes, where it
    is smaller than ``min_size``. An axis of the image that is shorter than ``min_size`` stays whole.

    Args:
        start: where the box begins on each spatial axis, from 0 to 1.
        end: where it ends.
        min_size: the least number of voxels on each axis, such as the patch size; one number serves all axes.
        lazy: whether to crop lazily, as in MONAI.

    Raises:
        ValueError: when the arguments differ in length, or not 0 <= start < end <= 1.

    Example:
        >>> import torch
        >>> crop = RelativeCrop(start=(0.25, 0.0), end=(0.5, 1.0), min_size=(10, 1))
        >>> crop(torch.zeros(1, 24, 7)).shape
        torch.Size([1, 10, 7])
    """

    def __init__(
        self, start: Sequence[float], end: Sequence[float], min_size: Sequence[int] | int = 1, lazy: bool = False
    ) -> None:
        super().__init__(lazy)
        sizes = [min_size] * len(start) if isinstance(min_size, int) else list(min_size)
        if not len(start) == len(end) == len(sizes):
            raise ValueError(f"start={start}, end={end} and min_size={min_size}: give one value an axis to each.")
        if not all(0 <= low < high <= 1 for low, high in zip(start, end, strict=True)):
            raise ValueError(f"start={start}, end={end}: give fractions, 0 <= start < end <= 1 on each axis.")
        self.box = list(zip(start, end, sizes, strict=True))

    def __call__(self, img: Tensor, lazy: bool | None = None) -> Tensor:  # type: ignore[override]
        """Crop an image ``(C, *spatial)``."""
        shape = img.peek_pending_shape() if isinstance(img, MetaTensor) else img.shape[1:]
        if len(shape) != len(self.box):
            raise ValueError(f"the image has {len(shape)} spatial axes and the box {len(self.box)}.")
        slices = tuple(_slice(int(size), *axis) for size, axis in zip(shape, self.box, strict=True))
        return super().__call__(img, slices, lazy)


class RelativeCropd(Cropd):
    """Dictionary-based :class:`RelativeCrop`; ``Invertd`` brings predictions back to the whole image.

    Args:
        keys: the images and labels to crop, all with the same box.
        start: where the box begins on each spatial axis, from 0 to 1.
        end: where it ends.
        min_size: the least number of voxels on each axis; one number serves all axes.
        allow_missing_keys: whether a key may be absent, such as the label of an unlabeled case.
        lazy: whether to crop lazily, as in MONAI.

    Raises:
        ValueError: as :class:`RelativeCrop`.

    Example:
        >>> import torch
        >>> crop = RelativeCropd("image", start=(0.5, 0.0), end=(1.0, 1.0))
        >>> crop({"image": torch.zeros(1, 8, 6)})["image"].shape
        torch.Size([1, 4, 6])
    """

    def __init__(
        self,
        keys: KeysCollection,
        start: Sequence[float],
        end: Sequence[float],
        min_size: Sequence[int] | int = 1,
        allow_missing_keys: bool = False,
        lazy: bool = False,
    ) -> None:
        super().__init__(keys, RelativeCrop(start, end, min_size, lazy), allow_missing_keys, lazy)


def _slice(size: int, start: float, end: float, least: int) -> slice:
    # Fractions such as 3 / 7 times 7 may miss the whole number by a rounding error.
    low, high = math.floor(start * size + ROUNDING), math.ceil(end * size - ROUNDING)
    length = min(max(high - low, least), size)
    first = min(max(low - (length - high + low) // 2, 0), size - length)
    return slice(first, first + length)


RelativeCropD = RelativeCropDict = RelativeCropd
