# SPDX-License-Identifier: Apache-2.0
"""Which names files of images have."""

from __future__ import annotations

import os

from .pictures import SUFFIXES as PICTURE_SUFFIXES

__all__ = ["SUFFIXES", "is_nifti", "without_suffix"]

_NIBABEL_SUFFIXES = (".nii.gz", ".nii", ".img.gz", ".img", ".hdr", ".mgz", ".mgh")
SUFFIXES = (
    *_NIBABEL_SUFFIXES,
    *(".nrrd", ".nhdr", ".mha", ".mhd", ".dcm"),
    *PICTURE_SUFFIXES,
)
"""What names of images end with, in lower case; longer ones come before those that they end with."""


def without_suffix(name: str) -> str:
    """Return the name of a file without a suffix of images; other dots stay, as in the UIDs that name DICOM folders.

    Example:
        >>> without_suffix("scan.1.NII.gz")
        'scan.1'
    """
    suffix = next((suffix for suffix in SUFFIXES if name.lower().endswith(suffix)), "")
    return name[: len(name) - len(suffix)]


def is_nifti(file: str | os.PathLike[str]) -> bool:
    """Say whether a file is read by nibabel, by its name: NIfTI in one file or two, and MGH.

    Example:
        >>> is_nifti("scan.NII.gz"), is_nifti("scan.nrrd")
        (True, False)
    """
    return os.fspath(file).lower().endswith(_NIBABEL_SUFFIXES)
