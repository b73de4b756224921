# SPDX-License-Identifier: Apache-2.0
"""The h5 files that SSL4MIS and UA-MT train on, as NIfTI files; they do not say how large voxels are."""

from __future__ import annotations

import gzip
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from metassl_monai.data import DatalistError
from metassl_monai.files import atomic_write

from .found import Case, Found

__all__ = ["h5_files", "read_h5"]

SUFFIXES = (".h5", ".hdf5")


def h5_files(folder: Path) -> list[Path]:
    """Return the h5 files in a folder and its sub-folders."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())


def read_h5(folder: Path, unlabeled: Sequence[Path], out: Path) -> Found:
    """Write the volumes in h5 files, with their annotations where they have some, as NIfTI files, and return the cases.

    A file holds ``image`` and maybe ``label``, 2D or 3D. A volume whose first axis is the shortest was stored from
    slice to slice, and gets that axis last. Where there are volumes, files of single slices are left out, since
    SSL4MIS keeps ACDC as both. Voxels have a size of 1, which is not known.

    Args:
        folder: the folder of the h5 files.
        unlabeled: further folders, whose annotations are left out.
        out: the folder for the NIfTI files, in ``images`` and ``labels``.

    Raises:
        DatalistError: if h5py is not installed, or a file has no image, is damaged, or has axes other than these.
    """
    files = dict.fromkeys(h5_files(folder), (folder, True))
    files |= {path: (other, False) for other in unlabeled for path in h5_files(other) if path not in files}
    axes = {path: _axes(path) for path in files}
    volumes = [path for path in files if axes[path] == 3]
    names = _names({path: files[path][0] for path in volumes or files})
    found = Found("h5", [], spacing_known=False)
    for path, name in names.items():
        image, label = _arrays(path)
        label = label if files[path][1] else None
        written = [
            _write(out / kind / f"{name}.nii.gz", array)
            for kind, array in (("images", image), ("labels", label))
            if array is not None
        ]
        found.cases.append(Case(name, (written[0],), written[1] if len(written) > 1 else None))
    if len(names) < len(files):
        found.remarks.append(f"{len(files) - len(names)} files of single slices are left out, as there are volumes")
    found.remarks.append("h5 files do not say how large voxels are: spacing is taken as 1, distances are in voxels")
    return found


def _names(folders: dict[Path, Path]) -> dict[Path, str]:
    """Return the name of each file: its path, without the file's own name where all files are called alike."""
    alike = len({path.name for path in folders}) == 1 and len(folders) > 1
    names = {
        path: (path.parent if alike else path.with_suffix("")).relative_to(folder) for path, folder in folders.items()
    }
    seen: dict[str, list[Path]] = defaultdict(list)
    for path, name in names.items():
        seen[name.as_posix()].append(path)
    for text, paths in seen.items():
        if len(paths) > 1:
            raise DatalistError(paths[1], f"has the same name {text!r} as {paths[0]}", "rename one of them")
    return {path: name.as_posix() for path, name in names.items()}


def _axes(path: Path) -> int:
    with _opened(path) as file:
        if "image" not in file:
            raise DatalistError(path, "has no data set `image`", "only files of SSL4MIS and UA-MT can be read")
        axes = len(file["image"].shape)
    if axes not in (2, 3):
        raise DatalistError(path, f"its image is {axes}D", "only 2D and 3D images of one channel can be read")
    return axes


def _arrays(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Return image (X, Y, Z) and annotation of a file."""
    with _opened(path) as file:
        try:
            image, label = file["image"][()], file["label"][()] if "label" in file else None
        except OSError as error:
            raise DatalistError(path, f"cannot be read ({error})", "copy or download it again") from None
    if label is not None and label.shape != image.shape:
        raise DatalistError(path, f"its label has the shape {label.shape}, its image {image.shape}", "leave it out")
    return _turned(image).astype(np.float32), None if label is None else _turned(label)


def _turned(array: np.ndarray) -> np.ndarray:
    """Return an array with the axis across slices last."""
    if array.ndim == 2:
        return array.T[..., None]
    return array.T if array.shape[0] < min(array.shape[1:]) else array


def _opened(path: Path) -> Any:
    try:
        import h5py
    except ImportError:
        raise DatalistError(path, "h5py is not installed", "run `pip install h5py`") from None
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise DatalistError(path, f"cannot be read ({error})", "copy or download it again") from None


def _write(file: Path, array: np.ndarray) -> Path:
    voxels = array.astype(np.uint8) if array.dtype == bool else array
    image: Any = nibabel.Nifti1Image(voxels, np.eye(4), dtype=np.int32 if voxels.dtype == np.int64 else voxels.dtype)
    with atomic_write(file, "wb") as target:
        target.write(gzip.compress(image.to_bytes(), compresslevel=6, mtime=0))
    return file
