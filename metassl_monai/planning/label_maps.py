# SPDX-License-Identifier: Apache-2.0
"""Which raw values an annotation holds."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from monai.data import MetaTensor

from metassl_monai.data import DatalistError, read_scan
from metassl_monai.data.pictures import first_channel

from .headers import reason_of

__all__ = ["JPEG_THRESHOLD", "ImageAsLabelError", "is_lossy", "raw_values", "refuse_swapped"]

MOST_VALUES = 200
"""A file with more different values is an image, not an annotation; whole-body annotations have about 120."""

LARGEST = 2**24
"""Float32, in which files are read, tells whole numbers apart up to here."""

JPEG_THRESHOLD = 128
"""Pixels of a JPEG mask at or above this are the structure: compression spreads 0 and 255."""

SPREAD = 32
"""How far compression may move a pixel of a mask."""

StrPath = str | os.PathLike[str]


class ImageAsLabelError(DatalistError):
    """A file whose values are those of an image."""


def is_lossy(file: StrPath) -> bool:
    """Say whether a file is JPEG, by its name."""
    return os.fspath(file).lower().endswith((".jpg", ".jpeg"))


def raw_values(file: StrPath) -> dict[int, int]:
    """Return the number of voxels of each value in an annotation.

    A JPEG mask has the values 0 and 255, as far as that is what compression has spread.

    Args:
        file: the annotation; its values are whole numbers of any type.

    Raises:
        ImageAsLabelError: if its values are not whole numbers, or more than an annotation has.
        DatalistError: if the file cannot be read, is in color, or has infinite or huge values.
    """
    try:
        label = read_scan(file)
    except Exception as error:  # damaged bytes make readers raise nearly anything
        raise DatalistError(file, f"cannot be read ({reason_of(error)})", "copy or export it again") from None
    voxels = _gray(label, file)
    if not np.isfinite(voxels).all():
        raise DatalistError(file, "the annotation has values that are not finite", "export it again with whole numbers")
    if not np.array_equal(voxels, voxels.round()):
        cause = f"label values are not whole numbers, such as {voxels[voxels != voxels.round()][0]:g}"
        remedy = "resample labels with nearest neighbors, or swap --images and --labels if this is an image"
        raise ImageAsLabelError(file, cause, remedy)
    if np.abs(voxels).max() >= LARGEST:
        raise DatalistError(file, f"has label values of up to {voxels.max():.0f}", "number the structures from 1")
    if is_lossy(file):
        voxels = _sharp(voxels)
    lowest = int(voxels.min())
    counts = np.bincount(voxels.astype(np.int64).ravel() - lowest)
    found = {lowest + int(place): int(counts[place]) for place in counts.nonzero()[0]}
    if len(found) > MOST_VALUES:
        cause = f"has {len(found)} different values, so that it is an image rather than an annotation"
        raise ImageAsLabelError(file, cause, "correct --labels, or swap --images and --labels")
    return found


def refuse_swapped(image: Path, label: Path) -> None:
    """Refuse a pair of which the image looks like an annotation, and the annotation like an image.

    Raises:
        DatalistError: for such a pair.
    """
    try:
        raw_values(label)
    except ImageAsLabelError:
        try:
            raw_values(image)
        except DatalistError:
            return
        raise DatalistError(label, f"is an image, and {image} an annotation", "swap --images and --labels") from None
    except DatalistError:
        return


def _gray(label: MetaTensor, file: StrPath) -> np.ndarray:
    """Return the voxels of an annotation that has one value each."""
    voxels = label.numpy()
    if voxels.ndim == 4:
        cause = f"the annotation has {len(voxels)} channels"
        raise DatalistError(file, cause, "merge them into one label map with a value for each structure")
    if voxels.ndim == 3 and label.meta.get("original_channel_dim") == -1:
        colors = voxels[..., :3] if voxels.shape[-1] > 2 else voxels[..., :1]  # without opacity
        if (np.abs(colors - colors[..., :1]) > (SPREAD if is_lossy(file) else 0)).any():
            raise DatalistError(file, "the annotation is in color", "save it in gray, one value for each structure")
    return np.asarray(first_channel(label).numpy())


def _sharp(voxels: np.ndarray) -> np.ndarray:
    """Return a JPEG mask as 0 and 255; as it is where it is no such mask."""
    near = (voxels <= SPREAD) | (voxels >= 255 - SPREAD)
    return np.where(voxels >= JPEG_THRESHOLD, 255, 0) if near.mean() > 0.9 else voxels
