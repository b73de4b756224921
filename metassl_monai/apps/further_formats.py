# SPDX-License-Identifier: Apache-2.0
"""What ``metassl infer --also`` writes beside each prediction, for viewers and archives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from metassl_monai.bundle.errors import UserError, refuse
from metassl_monai.data import prediction_path
from metassl_monai.data.pictures import is_picture
from metassl_monai.integrations.extras import required
from metassl_monai.integrations.labels import Label

__all__ = ["FORMATS", "check_formats", "write_formats"]

FORMATS: Mapping[str, tuple[str, str]] = {
    "seg.nrrd": ("slicerio", ".seg.nrrd"),
    "dicom-seg": ("highdicom", "_seg.dcm"),
}
"""The package that each one needs, and what names of its files end with."""


def check_formats(formats: Sequence[str], images: Sequence[Sequence[str]]) -> None:
    """Stop before anything is segmented for a format that cannot be written.

    Args:
        formats: some of :data:`FORMATS`.
        images: the files of each image.

    Raises:
        UserError: for an unknown format, one whose package is missing, or images that have no such format.
    """
    for name in formats:
        if name not in FORMATS:
            raise UserError(f"--also {name}: is no format: choose of {', '.join(FORMATS)}.")
        required(FORMATS[name][0], f"--also {name}")
        fits: Callable[[str], bool] = _is_series if name == "dicom-seg" else _is_volume
        kind = "a folder of DICOM slices" if name == "dicom-seg" else "a volume"
        refuse(f"{files[0]}: is not {kind}: leave --also {name} out" for files in images if not fits(files[0]))


def write_formats(formats: Sequence[str], files: Sequence[str], root: Path, out: Path, labels: Sequence[Label]) -> None:
    """Write the prediction of an image in further formats, beside its file.

    Args:
        formats: some of :data:`FORMATS`.
        files: those of the image.
        root: the folder that holds all images.
        out: the folder of the predictions.
        labels: the structures of the prediction.
    """
    from metassl_monai.integrations.dicom_seg import write_dicom_seg
    from metassl_monai.integrations.seg_nrrd import write_seg_nrrd

    prediction = prediction_path(files, root, out)
    for name in formats:
        path = prediction.with_name(prediction.name.removesuffix("_seg.nii.gz") + FORMATS[name][1])
        if name == "dicom-seg":
            write_dicom_seg(prediction, Path(files[0]), labels, path)
        else:
            write_seg_nrrd(prediction, labels, path)


def _is_series(file: str) -> bool:
    return Path(file).is_dir()


def _is_volume(file: str) -> bool:
    return not is_picture(file)
