# SPDX-License-Identifier: Apache-2.0
"""Which scans lie in a folder: image files of every format, and folders of DICOM slices."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from metassl_monai.data import DatalistError
from metassl_monai.data.dicom_slices import claims_to_be_dicom
from metassl_monai.data.formats import SUFFIXES, without_suffix

__all__ = ["Scan", "scans_in", "stem_of"]


class Scan(NamedTuple):
    """A file, or a folder of DICOM slices."""

    key: str  # the path in the folder that was searched, with slashes and without the suffix of its format
    path: Path


def scans_in(folder: Path, exclude: Sequence[Path] = ()) -> list[Scan]:
    """Return the scans in a folder and its sub-folders, sorted by their keys.

    Hidden files are passed over, and so are files of other kinds. A folder with DICOM slices is one scan; it is named
    after the highest folder that holds nothing else, so that the UIDs below a patient's folder do not matter.

    Args:
        folder: where to search.
        exclude: folders in it that are left out.

    Raises:
        DatalistError: if the folder is missing.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Path(folder, "Site A").mkdir()
        ...     for name in ("scan 1.nii.gz", "Site A/scan.1.NRRD", "notes.txt"):
        ...         Path(folder, name).touch()
        ...     [scan.key for scan in scans_in(Path(folder))]
        ['Site A/scan.1', 'scan 1']
    """
    if not folder.is_dir():
        cause = "is a file, not a folder" if folder.exists() else "the folder is missing"
        raise DatalistError(folder, cause, "correct the path")
    found = {path: stem_of(path.relative_to(folder)) for path in _paths(folder, {path.resolve() for path in exclude})}
    inside = Counter(parent for path in found for parent in path.parents)
    for path in [path for path in found if path.is_dir()]:
        name = path.name if path == folder else _alone(path, folder, inside).relative_to(folder).as_posix()
        found[path] = unicodedata.normalize("NFC", name)
    return sorted(Scan(key, path) for path, key in found.items())


def stem_of(path: Path) -> str:
    """Return a path with slashes and without the suffix of its format; letters with accents in one spelling.

    Example:
        >>> stem_of(Path("a/scan.1.NII.gz"))
        'a/scan.1'
    """
    return without_suffix(unicodedata.normalize("NFC", path.as_posix()))


def _paths(folder: Path, exclude: set[Path]) -> Iterator[Path]:
    seen = {*exclude, folder.resolve()}
    for place, folders, names in os.walk(folder, followlinks=True):
        base = Path(place)
        inner = {name: (base / name).resolve() for name in sorted(folders) if not name.startswith(".")}
        folders[:] = [name for name, real in inner.items() if real not in seen]
        seen |= {*inner.values()}  # a link may lead back
        files = [base / name for name in sorted(names) if not name.startswith(".")]
        files = [file for file in files if file.name.upper() != "DICOMDIR"]
        images = [file for file in files if file.name.lower().endswith(SUFFIXES) and file.suffix.lower() != ".dcm"]
        # a pair of header and voxels is one image
        yield from (file for file in images if not _is_voxels_of_another(file, files))
        if any(map(claims_to_be_dicom, (file for file in files if file not in images))):
            yield base


def _is_voxels_of_another(file: Path, files: list[Path]) -> bool:
    return file.name.lower().endswith((".img", ".img.gz")) and any(
        stem_of(other) == stem_of(file) and other.suffix.lower() == ".hdr" for other in files
    )


def _alone(series: Path, folder: Path, inside: Mapping[Path, int]) -> Path:
    """Return the highest folder below ``folder`` that holds this series and no other scan, by the number in each."""
    place = series
    while place.parent != folder and inside[place.parent] == 1:
        place = place.parent
    return place
