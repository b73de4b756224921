# SPDX-License-Identifier: Apache-2.0
"""JPEG, PNG and TIFF files: 2D, maybe in color, of any size, and without a voxel size."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    from monai.data import MetaTensor
    from torch import Tensor

__all__ = ["MAX_PIXELS", "first_channel", "gray", "is_picture", "large_pictures"]

MAX_PIXELS = 2**30
"""Pixels of the largest picture that is read without complaint, 3 GB in color; DigestPath has half of that."""

SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff")


def is_picture(file: str | os.PathLike[str]) -> bool:
    """Say whether a file is a picture, by its name.

    Example:
        >>> is_picture("slide.JPG"), is_picture("scan.nii.gz")
        (True, False)
    """
    return os.fspath(file).lower().endswith(SUFFIXES)


@contextmanager
def large_pictures(pixels: int = MAX_PIXELS) -> Iterator[None]:
    """Let Pillow open pictures of at least this size, which it takes for an attack above 0.18 gigapixels.

    Example:
        >>> from PIL import Image
        >>> with large_pictures():
        ...     Image.MAX_IMAGE_PIXELS == MAX_PIXELS
        True
    """
    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None if limit is None else max(limit, pixels)
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def first_channel(label: MetaTensor) -> MetaTensor:
    """Return an annotation without the color axis of a gray mask that was saved in color; any other as it is.

    Example:
        >>> import torch
        >>> from monai.data import MetaTensor
        >>> first_channel(MetaTensor(torch.zeros(4, 5, 3), meta={"original_channel_dim": -1})).shape
        torch.Size([4, 5])
    """
    if label.ndim != 3 or label.meta.get("original_channel_dim") != -1:
        return label
    gray: MetaTensor = label[..., 0]  # type: ignore[assignment]
    return gray


def gray(image: Tensor, label: Tensor) -> Tensor:
    """Return one channel of an image to draw a label map on: the mean of colors, the first of several channels.

    Args:
        image: see :func:`metassl_monai.data.read_scan`.
        label: of the image's spatial shape.

    Example:
        >>> import torch
        >>> gray(torch.ones(4, 5, 3), torch.zeros(4, 5)).shape, gray(torch.ones(2, 4, 5, 6), torch.zeros(4, 5, 6)).shape
        (torch.Size([4, 5]), torch.Size([4, 5, 6]))
    """
    if image.ndim == label.ndim:
        return image
    return image.mean(dim=-1) if image.shape[:-1] == label.shape else image[0]
