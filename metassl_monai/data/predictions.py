# SPDX-License-Identifier: Apache-2.0
"""Predictions as files: one of its own for each image, with that image's name, grid and header."""

from __future__ import annotations

import gzip
import os
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from monai.transforms import SaveImaged
from monai.utils import get_equivalent_dtype
from PIL import Image

from metassl_monai.files import atomic_write

from .channels import case_stem, image_files
from .geometry import SAME_GRID, grid_distance
from .label_values import raw_label
from .pictures import is_picture
from .reading import is_nifti

__all__ = ["SavePredictiond", "prediction_mistakes", "prediction_path"]

StrPath = str | os.PathLike[str]

_PLACE = ("qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z")
_HEADER = (*_PLACE, "srow_x", "srow_y", "srow_z", "xyzt_units")


def prediction_path(
    image: StrPath | Sequence[StrPath], dataset_dir: StrPath, predictions: StrPath, postfix: str = "seg"
) -> Path:
    """Return where the prediction of an image lies: the same sub-folder, ``<name>_seg.nii.gz``.

    The name is that of the image without a suffix of images; other dots stay, as in the UIDs that name folders of
    DICOM series. An image of several files, one a channel, is named by what their names begin with, and lies where the
    first one does. Where the image is a picture, such as JPEG, so is the prediction: ``<name>_seg.png``. Links are not
    followed.

    Example:
        >>> prediction_path("data/a/scan.1.nii.gz", "data", "out").as_posix()
        'out/a/scan.1_seg.nii.gz'
    """
    first = image_files(image)[0]
    return _path(first, case_stem(image), dataset_dir, predictions, postfix)


def prediction_mistakes(
    images: Iterable[StrPath | Sequence[StrPath]],
    dataset_dir: StrPath,
    predictions: StrPath,
    others: Iterable[StrPath] = (),
) -> Iterator[str]:
    """Yield a message for each prediction that two images would share, or that would overwrite an input.

    Args:
        images: the images to segment.
        dataset_dir: the folder that holds them.
        predictions: the folder of the predictions.
        others: further files that must stay, such as annotations.

    Example:
        >>> list(prediction_mistakes(["data/s.nii", "data/s.nii.gz"], "data", "out"))
        ['data/s.nii, data/s.nii.gz: would both be segmented into out/s_seg.nii.gz: rename all but one']
    """
    sources: dict[Path, dict[str, str]] = defaultdict(dict)
    inputs = {os.path.realpath(file) for file in others}
    for image in images:
        files = image_files(image)
        sources[prediction_path(image, dataset_dir, predictions)][os.path.abspath(files[0])] = files[0]
        inputs |= {os.path.realpath(file) for file in files}
    for target, of_one in sources.items():
        if len(of_one) > 1:
            names = ", ".join(sorted(of_one.values()))
            yield f"{names}: would both be segmented into {target}: rename all but one"
        if os.path.realpath(target) in inputs:
            yield f"{target}: is an input, and the prediction would overwrite it: choose another --output_dir"


class SaveImagePredictiond(SaveImaged):
    """Write a label map, or a map of probabilities, as its image is stored.

    The file appears whole or not at all. From a NIfTI image it has the header: sform and qform with their codes, units
    and voxel size; from other formats the affine. A single slice ``(X, Y, 1)`` stays one. Channels come last, and a
    single one is dropped.

    Args:
        keys: what to write, ``(C, *spatial)`` in the geometry of its image's file, whose name it has in its metadata.
        output_dir: folder of the predictions.
        data_root_dir: folder of the images; predictions go into the same sub-folders of ``output_dir``.
        output_postfix: what to add to the name.
        output_dtype: type of the file's voxels; pictures have 8 bits.
        scale: factor for pictures, whose 8 bits hold 0 to 255.
        label_values: class by raw value, as in a datalist: the file then holds the raw values of its annotations, in
            the smallest type that holds all of them, and pictures may have 16 bits.
    """

    def __init__(
        self,
        keys: Any,
        output_dir: StrPath,
        data_root_dir: StrPath,
        output_postfix: str = "seg",
        output_dtype: Any = np.uint8,
        scale: int | None = None,
        label_values: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__(
            keys, output_dir=os.fspath(output_dir), output_postfix=output_postfix, output_dtype=output_dtype
        )
        self.output_dir, self.data_root_dir, self.output_postfix = output_dir, data_root_dir, output_postfix
        self.output_dtype, self.scale, self.label_values = output_dtype, scale, label_values

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write the maps and return the item as it is."""
        for key in self.key_iterator(dict(data)):
            image = data[key]
            source = image.meta["filename_or_obj"]
            stem = image.meta.get("case_stem", case_stem(source))
            file = _path(source, stem, self.data_root_dir, self.output_dir, self.output_postfix)
            voxels = self._values(image.cpu().numpy(), is_picture(file))
            with atomic_write(file, "wb") as target:
                if is_picture(file):
                    Image.fromarray(voxels[0].T).save(target, format="PNG")
                else:
                    target.write(_nifti_bytes(voxels, np.asarray(image.affine), source))
        return dict(data)

    def _values(self, voxels: np.ndarray, picture: bool) -> np.ndarray:
        if self.label_values:
            return raw_label(voxels, self.label_values)
        if picture:
            return (voxels if not self.scale else (self.scale * voxels.clip(0, 1)).round()).astype(np.uint8)
        return voxels.astype(get_equivalent_dtype(self.output_dtype, np.ndarray))


SavePredictiond = SaveImagePredictiond
"""What configs call it. MONAI Deploy leaves out what writes files by ``SaveImage`` in the name of the class."""


def _path(image: StrPath, stem: str, dataset_dir: StrPath, predictions: StrPath, postfix: str) -> Path:
    relative = Path(os.path.relpath(os.path.abspath(image), os.path.abspath(dataset_dir)))
    return Path(predictions) / relative.parent / f"{stem}_{postfix}{'.png' if is_picture(relative) else '.nii.gz'}"


def _nifti_bytes(voxels: np.ndarray, affine: np.ndarray, source: str) -> bytes:
    # channel first is a fourth axis of NIfTI
    voxels = np.moveaxis(voxels, 0, -1)
    voxels = voxels[..., 0] if voxels.shape[-1] == 1 else voxels
    # NIfTI has all integer types, and nibabel asks to confirm the 64-bit ones
    nifti: Any = nibabel.Nifti1Image(voxels, affine, dtype=voxels.dtype)
    header = _header_of(source, voxels.shape, affine)
    if header is None:
        nifti.set_sform(affine, code=1)
        nifti.set_qform(affine, code=1)
        if not np.allclose(nifti.get_qform(), affine, atol=1e-4):
            nifti.set_qform(None)  # it cannot hold a shear
        nifti.header.set_xyzt_units("mm")
    else:
        for field in _HEADER:
            nifti.header[field] = header[field]
        nifti.header["pixdim"][:4] = header["pixdim"][:4]
    # a fixed time, so that equal predictions are equal files
    return gzip.compress(nifti.to_bytes(), compresslevel=6, mtime=0)


def _header_of(source: str, shape: tuple[int, ...], affine: np.ndarray) -> Any:
    """Return the header of the image's file where that is a NIfTI on this very grid."""
    if not is_nifti(source):
        return None
    image: Any = nibabel.load(source)
    same = shape[:3] == image.shape[:3] and grid_distance(image.affine, affine, shape[:3]) <= SAME_GRID
    return image.header if same and "qform_code" in image.header else None
