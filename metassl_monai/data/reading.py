# SPDX-License-Identifier: Apache-2.0
"""The one way in which check, training, inference and evaluation read an image and an annotation.

A NIfTI file lies where its sform says, where that has a code; else where its qform says, where that has one; else
its voxels have the size in ``pixdim`` and no known place. So nibabel, FSL and 3D Slicer have it. The voxel size is that
of this affine. (MONAI's own reader takes the qform instead where the sform does not fit ``pixdim``, as after a
registration with scaling, and images then lie elsewhere than in a viewer.)
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel
import torch
from monai.data import ImageReader, ITKReader, MetaTensor, NibabelReader, PILReader
from monai.transforms import LoadImage, MapTransform
from monai.utils import ensure_tuple

from metassl_monai.network_record import made_with

from .channels import channels_first, image_files
from .datalist import parse_json, read_datalist
from .dicom import SeriesReader
from .formats import is_nifti
from .geometry import SAME_GRID, grid_distance
from .itk_files import itk_reading
from .label_values import label_classes
from .orientation import reoriented
from .pictures import first_channel, is_picture, large_pictures
from .problems import DatalistError
from .sizes import size_problem

__all__ = [
    "LabelClassesd",
    "ScanReader",
    "datalist_orientation",
    "is_nifti",
    "network_orientation",
    "read_label",
    "read_scan",
]

StrPath = str | os.PathLike[str]


class ScanReader(ImageReader):
    """Reads what this package trains on, segments and scores, each kind of file by one rule.

    NIfTI (and MGH) through nibabel with its affine as it is, JPEG, PNG and TIFF through Pillow, a folder as the DICOM
    series that it must be, everything else (NRRD, MetaImage, ...) through ITK. Several files are the channels of one
    image and lie on one grid. In a config:
    ``{"_target_": "LoadImaged", "keys": "image", "reader": "metassl_monai.data.ScanReader"}``.
    """

    def verify_suffix(self, filename: Sequence[Any] | Any) -> bool:
        """Accept any file."""
        return True

    def read(self, data: Sequence[Any] | Any, **kwargs: Any) -> Any:
        """Read one file or folder, or one a channel.

        Returns:
            What `get_data` takes: each file, the reader of its kind, since several threads may share this object, and
            what it read.

        Raises:
            ValueError: for a header that asks for more than the file can hold or the machine can read.
        """
        for file in ensure_tuple(data):
            if problem := size_problem(os.fspath(file)):
                raise DatalistError(*problem)
        with large_pictures():
            return [
                (file, reader, reader.read(file, **kwargs)) for file in ensure_tuple(data) for reader in [_reader(file)]
            ]

    def get_data(self, img: Any) -> tuple[Any, dict[str, Any]]:
        """Return voxels and metadata; several channels come first.

        Raises:
            ValueError: for a channel that does not lie on the grid of the first one.
        """
        files = [os.fspath(file) for file, _, _ in img]
        return channels_first(files, [reader.get_data(content) for _, reader, content in img])


class _NiftiReader(NibabelReader):
    def read(self, data: Any, **kwargs: Any) -> Any:
        self.filenames = ensure_tuple(data)
        return nibabel.load(self.filenames[0])


def _reader(file: StrPath) -> ImageReader:
    folder = Path(file).is_dir()
    if folder or not (is_nifti(file) or is_picture(file)):
        itk_reading(file)
        return SeriesReader() if folder else ITKReader()
    return _NiftiReader() if is_nifti(file) else PILReader()


def read_scan(file: StrPath | Sequence[StrPath], orientation: str | None = None) -> MetaTensor:
    """Read an image, in an orientation such as ``"RAS"``, or as it is stored where that is None.

    Args:
        file: a file, or the folder of a DICOM series; or several of them, one a channel.
        orientation: to where the axes point; only for volumes.

    Returns:
        Float32 ``(X, Y, Z)``, ``(X, Y)``, ``(X, Y, C)`` of a color picture, or ``(C, ...)`` of several files
        or of one that is 4D.

    Raises:
        ValueError: for a folder that is not one evenly spaced volume. A damaged file raises what its reader raises.
    """
    return reoriented(LoadImage(image_only=True)(image_files(file), reader=ScanReader()), orientation)


def read_label(file: StrPath, datalist: Mapping[str, Any]) -> MetaTensor:
    """Read an annotation as classes.

    Args:
        file: the annotation.
        datalist: the content of the datalist, whose ``label_values`` or ``label_threshold`` and ``orientation`` hold.

    Returns:
        Class indices, int32 ``(X, Y, Z)`` or, of a picture, ``(X, Y)``; :data:`~metassl_monai.ignore.IGNORE` where
        nobody annotated.

    Raises:
        ValueError: if a value stands for no class.
    """
    label = first_channel(read_scan(file, datalist.get("orientation")))
    return MetaTensor(torch.as_tensor(label_classes(label.numpy(), datalist, file)), meta=label.meta)


def datalist_orientation(datalist: StrPath | None, default: str | None = None) -> str | None:
    """Return the orientation that a datalist names, or the default where it names none or there is no datalist.

    For bundle configs: ``$metassl_monai.data.datalist_orientation(@datalist)``.
    """
    content = parse_json(datalist) if datalist else {}
    return content.get("orientation", default) if isinstance(content, dict) else default


def network_orientation(network: StrPath, datalist: StrPath | None = None, default: str | None = None) -> str | None:
    """Return the orientation that a network was trained in, from the record beside it.

    A network that has no record is taken to be trained as `datalist_orientation` says. For bundle configs:
    ``$metassl_monai.data.network_orientation(@ckpt_path, @datalist)``.

    Args:
        network: the file of its weights.
        datalist: a datalist whose images it is to segment.
        default: the bundle's own.
    """
    return made_with(os.fspath(network)).get("orientation", datalist_orientation(datalist, default))


class LabelClassesd(MapTransform):
    """Turn the raw values of an annotation into the classes that its datalist says they are.

    What the datalist calls ``ignore`` becomes :data:`~metassl_monai.ignore.IGNORE`.
    Values that stand for no class are an error. The annotation takes over the affine of its image, so that what follows
    treats both alike to the last bit; one whose grid is another (by more than 1 % of a voxel) is refused.

    Args:
        keys: the annotation, channel first.
        datalist: the datalist, for its ``labels``, ``label_values`` or ``label_threshold``, and ``ignore``; read at the
            first call.
        image_key: the image that the annotation lies on.
        allow_missing_keys: accept items without annotation.

    Raises:
        ValueError: for a value that stands for no class, or an annotation beside its image.
    """

    def __init__(
        self, keys: Any, datalist: StrPath, image_key: Hashable = "image", allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.datalist = datalist
        self.image_key = image_key
        self.content: dict[str, Any] | None = None

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with its annotation as classes, float32 of the shape it had."""
        if self.content is None:
            self.content = read_datalist(self.datalist)
        item = dict(data)
        for key in self.key_iterator(item):
            label, image = item[key], item[self.image_key]
            file = label.meta["filename_or_obj"]
            if label.shape[1:] != image.shape[1:]:
                cause = f"its shape {tuple(label.shape[1:])} is not {tuple(image.shape[1:])}, that of its image"
                raise DatalistError(file, cause, "pair the right files")
            distance = grid_distance(image.affine, label.affine, image.shape[1:])
            if distance > SAME_GRID:
                cause = f"lies up to {distance:.3g} voxels beside its image"
                raise DatalistError(file, cause, "resample the annotation onto the image")
            classes = torch.as_tensor(label_classes(label.numpy(), self.content, file), dtype=torch.float32)
            meta = {**label.meta, "affine": image.affine}
            item[key] = MetaTensor(classes, meta=meta, applied_operations=label.applied_operations)
        return item
