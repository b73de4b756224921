# SPDX-License-Identifier: Apache-2.0
"""What the headers of the DICOM files in a folder state; no pixel is decoded."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .itk_files import itk_reading

__all__ = ["Slice", "claims_to_be_dicom", "read_slices"]

SUFFIXES = (".dcm", ".dicom", ".ima")
SERIES, POSITION, ORIENTATION, SPACING = "0020|000e", "0020|0032", "0020|0037", "0028|0030"
DISTANCES = ("0018|0088", "0018|0050")  # between slices, or else the thickness of one


class Slice(NamedTuple):
    """What the header of one file states; lengths in mm, directions and positions to the left, back and top (LPS)."""

    file: str
    series: str
    size: tuple[int, ...]  # columns, rows, frames
    channels: int
    spacing: np.ndarray  # (2,): from column to column, from row to row; NaN if the header has none
    axes: np.ndarray  # (2, 3): along a row, along a column; NaN if the header has none
    position: np.ndarray  # (3,): of the first pixel; NaN if the header has none
    distance: float  # of slices; 0 if the header has none

    @property
    def name(self) -> str:
        """The file's name, as messages give it."""
        return os.path.basename(self.file)


def read_slices(folder: str | os.PathLike[str]) -> tuple[list[Slice], list[str]]:
    """Return the slices in a folder, in the order of their names, and the names of files that cannot be read.

    A file is a slice if ITK reads it as an image. Others, a DICOMDIR, hidden files and sub-folders are passed over, but
    not a file that is DICOM by its name or its first bytes.
    """
    files = sorted(path for path in Path(folder).iterdir() if path.is_file() and path.name.upper() != "DICOMDIR")
    # Hidden files are what systems leave behind; some of them bear the name of a slice.
    files = [path for path in files if not path.name.startswith(".")]
    itk = itk_reading(folder)
    read = {path: _slice(path, itk.GDCMImageIO.New()) for path in files}
    damaged = [path.name for path, piece in read.items() if piece is None and claims_to_be_dicom(path)]
    return [piece for piece in read.values() if piece], damaged


def claims_to_be_dicom(file: Path) -> bool:
    """Say whether a file is DICOM by its name or its first bytes."""
    with file.open("rb") as stream:
        return file.name.lower().endswith(SUFFIXES) or stream.read(132)[128:] == b"DICM"


def _slice(file: Path, dicom: Any) -> Slice | None:
    """Return what a header states, read by an ``itk.GDCMImageIO``; None if the file is no DICOM image."""
    dicom.SetFileName(str(file))
    if not dicom.CanReadFile(str(file)):
        return None
    try:
        dicom.ReadImageInformation()
    except RuntimeError:  # such as a report, which has no pixels
        return None
    header = dicom.GetMetaDataDictionary()
    return Slice(
        file=str(file),
        series=_text(header, SERIES),
        size=tuple(dicom.GetDimensions(axis) for axis in range(3)),
        channels=dicom.GetNumberOfComponents(),
        spacing=_numbers(header, SPACING, 2)[::-1],  # the header names that of rows first
        axes=_numbers(header, ORIENTATION, 6).reshape(2, 3),
        position=_numbers(header, POSITION, 3),
        distance=next((value for key in DISTANCES if (value := _numbers(header, key, 1)[0]) > 0), 0.0),
    )


def _text(header: Any, key: str) -> str:
    return str(header[key]).strip(" \0") if header.HasKey(key) else ""


def _numbers(header: Any, key: str, count: int) -> np.ndarray:
    """Return the finite numbers of a field; NaN if they are not there."""
    try:
        numbers = np.array([float(part) for part in _text(header, key).split("\\")])
    except ValueError:
        numbers = np.empty(0)
    return numbers if len(numbers) == count and np.isfinite(numbers).all() else np.full(count, np.nan)
