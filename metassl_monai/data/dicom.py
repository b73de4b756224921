# SPDX-License-Identifier: Apache-2.0
"""Folders of DICOM slices, read as one volume only where they are one: evenly spaced, without gap, double or shear.

Readers of DICOM stack whatever lies in a folder, so that a missing slice becomes a wrong spacing and a second series is
left out or mixed in. Here the position and orientation that each header states decide, not file names or numbers.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from monai.data import ITKReader

from .dicom_slices import Slice, read_slices
from .itk_files import itk_reading
from .problems import DatalistError, Problem

__all__ = ["SeriesReader", "series_problem"]

TOLERANCE = 0.01
"""How far a slice may be from its place, as a fraction of the distance of slices: headers state rounded positions."""

SAME = 1e-3
"""How far directions, and lengths as a fraction, may differ among slices that lie on one grid."""

REMEDY = "keep only the slices of one evenly spaced series in the folder, or convert it to one volume file"

StrPath = str | os.PathLike[str]


class SeriesReader(ITKReader):
    """Read a folder that holds the slices of one series, in the order of their positions; other paths are not its own.

    The array is float32 ``(X, Y, Z)`` with the rescale slope and intercept applied; X runs along the rows of a slice, Y
    along its columns and Z along the normal of the slices. ``affine`` leads from voxels to mm to the right, front and
    top (RAS), as with every reader of MONAI.

    Raises:
        DatalistError: a ``ValueError`` that names folder and cause, where `series_problem` finds one.
    """

    def verify_suffix(self, filename: Sequence[StrPath] | StrPath) -> bool:
        """Say whether every path is a folder."""
        return all(os.path.isdir(path) for path in _paths(filename))

    def read(self, data: Sequence[StrPath] | StrPath, **kwargs: Any) -> Any:
        """Return one ITK image of float32, or a list of them for several folders."""
        images = [_image(path) for path in _paths(data)]
        return images if len(images) > 1 else images[0]


def series_problem(folder: StrPath) -> Problem | None:
    """Say why the slices in a folder are not one evenly spaced volume; None where they are. Only headers are read.

    A file is a slice if DICOM readers can read it; other files, a DICOMDIR and sub-folders are passed over, but not a
    damaged file that is DICOM by its name or its first bytes. A single slice is a volume if its header states its
    thickness.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     problem = series_problem(folder)
        >>> problem.cause
        'holds no DICOM file'
    """
    try:
        _sorted_slices(folder)
    except DatalistError as error:
        return error.problem
    return None


def _paths(paths: Sequence[StrPath] | StrPath) -> list[StrPath]:
    return [paths] if isinstance(paths, str | os.PathLike) else list(paths)


def _image(folder: StrPath) -> Any:
    itk = itk_reading(folder)
    slices = _sorted_slices(folder)
    image = itk.imread([piece.file for piece in slices], pixel_type=itk.F)
    # ITK's own geometry is that of an untilted stack, and without a thickness for a single slice.
    columns = [axis * length for axis, length in zip(slices[0].axes, slices[0].spacing, strict=True)]
    matrix = np.stack([*columns, _step(slices)], axis=1)
    lengths = np.linalg.norm(matrix, axis=0)
    image.SetSpacing(lengths.tolist())
    image.SetOrigin(slices[0].position.tolist())
    image.SetDirection(np.ascontiguousarray(matrix / lengths))
    return image


def _sorted_slices(folder: StrPath) -> list[Slice]:
    """Return the slices in the order of their positions; raise the first thing that keeps them from being a volume."""
    slices, damaged = read_slices(folder)
    for cause in _grid_causes(slices, damaged):
        raise DatalistError(folder, cause, REMEDY)
    normal = _normal(slices)
    slices = sorted(slices, key=lambda piece: float(piece.position @ normal))
    for cause in _place_causes(slices):
        raise DatalistError(folder, cause, REMEDY)
    return slices


def _grid_causes(slices: list[Slice], damaged: list[str]) -> Iterator[str]:
    """Yield why the slices are not cuts of one series with the same pixels and directions."""
    if damaged:
        yield f"{damaged[0]} is damaged or not a DICOM image"
    if not slices:
        yield "holds no DICOM file"
        return
    if (series := len({piece.series for piece in slices})) > 1:
        yield f"holds {series} series"
    for piece in slices:
        yield from _slice_causes(piece)
    first = slices[0]
    for piece in slices:
        if not np.allclose(piece.axes, first.axes, rtol=0, atol=SAME):
            yield f"{piece.name} has another orientation than {first.name}"
        if piece.size != first.size:
            yield f"{piece.name} has another size than {first.name}"
        if not np.allclose(piece.spacing, first.spacing, rtol=SAME, atol=0):
            yield f"{piece.name} has another pixel spacing than {first.name}"


def _slice_causes(piece: Slice) -> Iterator[str]:
    """Yield why a slice is no gray cut with a place in space."""
    if piece.size[2] > 1:
        yield f"{piece.name} holds {piece.size[2]} frames, whose positions cannot be checked"
    if piece.channels > 1:
        yield f"{piece.name} is in color"
    if not (piece.spacing > 0).all():
        yield f"{piece.name} states no pixel spacing"
    if np.isnan(piece.position).any():
        yield f"{piece.name} states no position"
    # NaN is close to nothing, so that a header without an orientation is caught too
    if not np.allclose(piece.axes @ piece.axes.T, np.eye(2), rtol=0, atol=SAME):
        yield f"{piece.name} states no orientation by two perpendicular directions"


def _place_causes(slices: list[Slice]) -> Iterator[str]:
    """Yield why slices, sorted by position, do not lie evenly spaced on a straight line along the normal."""
    if len(slices) == 1:
        if not slices[0].distance:
            yield f"holds a single slice, {slices[0].name}, whose thickness is not known"
        return
    normal, step = _normal(slices), _step(slices)
    places = np.stack([piece.position for piece in slices])
    gaps = np.diff(places @ normal)
    usual = float(np.median(gaps[gaps > 0])) if gaps.any() else 0.0
    twin, odd = int(gaps.argmin()), int(np.abs(gaps - usual).argmax())
    if gaps[twin] <= TOLERANCE * usual:
        yield f"{slices[twin].name} and {slices[twin + 1].name} lie at one position"
        return
    strays = places - places[0] - np.arange(len(slices))[:, None] * step
    along, sideways = strays @ normal, np.linalg.norm(strays - np.outer(strays @ normal, normal), axis=1)
    if np.abs(along).max() > TOLERANCE * usual:
        names = f"{slices[odd].name} and {slices[odd + 1].name}"
        yield f"{names} are {gaps[odd]:.4g} mm apart, and most other slices {usual:.4g} mm"
    shear = np.linalg.norm(step - step @ normal * normal) / usual
    if shear > TOLERANCE:
        yield f"its slices are sheared by {np.degrees(np.arctan(shear)):.1f} degrees, as with a tilted gantry"
    if sideways.max() > TOLERANCE * usual:
        yield f"{slices[int(sideways.argmax())].name} is shifted sideways"


def _normal(slices: list[Slice]) -> np.ndarray:
    normal: np.ndarray = np.cross(*slices[0].axes)
    unit: np.ndarray = normal / np.linalg.norm(normal)
    return unit


def _step(slices: list[Slice]) -> np.ndarray:
    """Return the vector from one slice to the next, in mm."""
    if len(slices) == 1:
        return slices[0].distance * _normal(slices)
    step: np.ndarray = (slices[-1].position - slices[0].position) / (len(slices) - 1)
    return step
