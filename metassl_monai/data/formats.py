# SPDX-License-Identifier: Apache-2.0
"""Which names files of images have."""

from __future__ import annotations

from .pictures import SUFFIXES as PICTURE_SUFFIXES

__all__ = ["SUFFIXES", "without_suffix"]

SUFFIXES = (
    *(".nii.gz", ".nii", ".img.gz", ".img", ".hdr", ".mgz", ".mgh"),
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
