# SPDX-License-Identifier: Apache-2.0
"""What the headers of images say about their axes, before any voxel is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import nibabel
from PIL import Image

from metassl_monai.data import DatalistError
from metassl_monai.data.itk_files import itk_header
from metassl_monai.data.pictures import is_picture, large_pictures
from metassl_monai.data.reading import is_nifti

from .found import Case

__all__ = ["check_headers", "reason_of"]


class Header(NamedTuple):
    """The kind of one image."""

    axes: int  # in space: 2 or 3
    channels: int  # colors, or along a fourth axis

    def __str__(self) -> str:
        return f"{self.axes}D with {self.channels} channels" if self.channels > 1 else f"{self.axes}D"


def check_headers(cases: Sequence[Case], channels: int) -> int:
    """Return how many axes images have in space, 2 or 3; refuse images that cannot be read or are not of one kind.

    Args:
        cases: cases; those of several files have one channel a file.
        channels: how many the layout says that an image has.

    Raises:
        DatalistError: for an unreadable file, 2D images among 3D ones, gray pictures among colored ones, and 4D files
            whose fourth axis is not known to be that of channels.
    """
    headers = {path: _header(path) for case in cases for path in case.images}
    for case in cases:
        for path in case.images:
            found = headers[path]
            wanted = channels if len(case.images) == 1 else 1
            if found.axes == 3 and found.channels != wanted:
                raise _channel_error(path, found.channels, wanted)
    kinds = Counter(headers.values())
    if len(kinds) > 1:
        usual, rare = kinds.most_common(1)[0][0], kinds.most_common()[-1][0]
        path, other = (next(path for path, kind in headers.items() if kind == wanted) for wanted in (rare, usual))
        remedy = "take one kind of them out of the folder, or convert them"
        raise DatalistError(path, f"is {rare}, while {other.name} and most others are {usual}", remedy)
    return next(iter(kinds)).axes


def reason_of(error: Exception) -> str:
    """Return the line of an error of a reader that tells why; ITK first tells where in its own source."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[-1 if 'ITK' in lines[0] else 0][:120]}"


def _channel_error(path: Path, found: int, wanted: int) -> DatalistError:
    if wanted > 1:
        cause = f"has {found} channel{'s' if found > 1 else ''}, and there are to be {wanted}"
        return DatalistError(path, cause, "add the missing channels, or correct the list of channels")
    remedy = "write one file a channel, NAME_0000 and so on; or, of a film, one file a frame"
    return DatalistError(path, f"is a volume with a fourth axis of {found}", remedy)


def _header(path: Path) -> Header:
    try:
        if path.is_dir():
            return Header(3, 1)
        if is_nifti(path):
            return _of_shape(nibabel.load(path).shape)  # type: ignore[attr-defined]
        return _picture(path) if is_picture(path) else _itk(path)
    except DatalistError:
        raise
    except Exception as error:  # damaged bytes make readers raise nearly anything
        raise DatalistError(path, f"cannot be read ({reason_of(error)})", "copy or export it again") from None


def _of_shape(shape: Sequence[int]) -> Header:
    return Header(min(len(shape), 3), shape[3] if len(shape) > 3 else 1)


def _picture(path: Path) -> Header:
    with large_pictures(), Image.open(path) as picture:
        if getattr(picture, "n_frames", 1) > 1:
            raise DatalistError(path, "has several pages", "convert it to NIfTI with its voxel size")
        return Header(2, 1 if picture.mode == "P" else len(picture.getbands()))


def _itk(path: Path) -> Header:
    header = itk_header(path)
    if header is None:
        raise DatalistError(path, "cannot be read (ITK knows no such format)", "copy or export it again")
    axes = header.GetNumberOfDimensions()
    return Header(min(axes, 3), header.GetDimensions(3) if axes > 3 else header.GetNumberOfComponents())
