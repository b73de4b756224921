# SPDX-License-Identifier: Apache-2.0
"""Scans and annotations as small files of any format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np


def write_scan(file: Path, voxels: np.ndarray, spacing: Sequence[float] = (1, 1, 2)) -> Path:
    """Write a volume (X, Y, Z) in the format of its suffix, or a picture (X, Y), and make its folder."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.name.lower().endswith((".png", ".jpg", ".tif")):
        from PIL import Image

        Image.fromarray(voxels.swapaxes(0, 1)).save(file)
    elif ".nii" in file.name.lower():
        nibabel.save(nibabel.Nifti1Image(voxels, np.diag([*spacing, 1])), file)
    else:
        import itk

        image = itk.image_from_array(np.ascontiguousarray(voxels.T))
        image.SetSpacing([*map(float, spacing)])
        # ITK's axes point to the left and back
        image.SetDirection(np.diag([-1.0, -1.0, 1.0]))
        itk.imwrite(image, str(file))
    return file


def an_image(seed: int = 0, shape: Sequence[int] = (8, 7, 5)) -> np.ndarray:
    return np.random.default_rng(seed).integers(-100, 1000, shape).astype(np.int16)


def a_label(*values: int, shape: Sequence[int] = (8, 7, 5), dtype: type = np.uint8) -> np.ndarray:
    """An annotation with a column of each value on zeros."""
    label = np.zeros(shape, dtype)
    for place, value in enumerate(values or (1,)):
        label[1 + place, 2:5] = value
    return label
