# SPDX-License-Identifier: Apache-2.0
"""Scans and annotations as small files of any format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np

SHAPE = (8, 7, 5)


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
        image.SetSpacing([*map(float, spacing[: voxels.ndim])])
        if voxels.ndim == 3:
            # ITK's axes point to the left and back
            image.SetDirection(np.diag([-1.0, -1.0, 1.0]))
        itk.imwrite(image, str(file))
    return file


def write_series(folder: Path, voxels: np.ndarray, uid: str) -> Path:
    """Write a volume (X, Y, Z) as a DICOM series of axial slices."""
    import itk

    folder.mkdir(parents=True)
    tags = {"0008|0060": "CT", "0008|0016": "1.2.840.10008.5.1.4.1.1.2", "0020|000d": uid, "0020|000e": f"{uid}.1"}
    for z in range(voxels.shape[2]):
        image = itk.image_from_array(np.ascontiguousarray(voxels[:, :, z : z + 1].T))
        image.SetSpacing((1.0, 1.0, 2.0))
        image.SetOrigin((0.0, 0.0, 2.0 * z))
        header = image.GetMetaDataDictionary()
        for key, value in {**tags, "0008|0018": f"{uid}.1.{z + 1}", "0020|0013": str(z + 1)}.items():
            header[key] = value
        dicom = itk.GDCMImageIO.New()
        dicom.KeepOriginalUIDOn()
        itk.ImageFileWriter[type(image)].New(Input=image, FileName=str(folder / f"{z}.dcm"), ImageIO=dicom).Update()
    return folder


def an_image(seed: int = 0, shape: Sequence[int] = SHAPE) -> np.ndarray:
    return np.random.default_rng(seed).integers(-100, 1000, shape).astype(np.int16)


def a_picture(seed: int = 0, shape: Sequence[int] = (40, 30)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def a_label(*values: int, shape: Sequence[int] = SHAPE, dtype: type = np.uint8) -> np.ndarray:
    """An annotation with a column of each value on zeros."""
    label = np.zeros(shape, dtype)
    for place, value in enumerate(values or (1,)):
        label[1 + place, 2:5] = value
    return label
