# SPDX-License-Identifier: Apache-2.0
"""Read every file of a data set and report all that is wrong with it at once."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import nibabel
import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import LoadImage
from tqdm import tqdm

from .aliases import alias_errors
from .datalist import LISTS, DatalistError, datalist_errors, join_inside, parse_json, path_error
from .label_values import classes_by_value, foreign_values, label_value_mistakes, map_label_values
from .orientation import orientation_mistakes, reoriented
from .pictures import large_pictures

__all__ = ["Problem", "check_datalist", "check_images"]

NIFTI = (".nii", ".nii.gz")
AFFINE_TOLERANCE = 1e-3

Classes = dict[int, int]


class Problem(NamedTuple):
    """One thing that is wrong: in which file, what, and what to do about it."""

    file: str
    cause: str
    remedy: str


class Case(NamedTuple):
    """The files of one case, relative to the folder of the data set."""

    image: str
    label: str | None
    needs_foreground: bool


def check_datalist(
    path: str | os.PathLike[str],
    dataset_dir: str | os.PathLike[str],
    lists: Sequence[str] | None = None,
    progress: bool = False,
) -> list[Problem]:
    """Check the structure of a datalist and read every file that it names; never raises for bad data.

    A file is wrong if it is missing, cannot be read to its end, is neither 2D nor 3D, has NaN or infinite voxels or a
    non-finite or singular affine. A label is also wrong if its shape or affine (tolerance 1e-3) is not the image's,
    if a value is not an integer or stands for none of the ``labels`` (as it is, or by the datalist's ``label_values``
    or ``label_threshold``), and in ``labeled`` if it is all background. With an ``orientation`` in the datalist, shapes
    and affines are compared after both were turned into it. An image may be the folder of a DICOM series. A file that
    two items name by links, and an image for validation or testing that is a copy of another, are wrong in any list.

    Args:
        path: the datalist.
        dataset_dir: the folder that its paths are relative to.
        lists: the lists whose files are read; all by default. The structure is always checked whole.
        progress: show a progress bar with the remaining time.

    Returns:
        All problems, none if the data set is sound.

    Example:
        >>> check_datalist("nowhere.json", ".")[0].cause
        'the file is missing'
    """
    try:
        datalist = parse_json(path)
    except DatalistError as error:
        return [Problem(*error.args)]
    problems = [Problem(*error.args) for error in datalist_errors(datalist, path)]
    unknown = [key for key in lists or () if key not in LISTS]
    problems += [Problem(os.fspath(path), f"has no list {key!r}", f"use {', '.join(LISTS)}") for key in unknown]
    if not os.path.isdir(dataset_dir):
        return [*problems, Problem(os.fspath(dataset_dir), "the folder is missing", "correct `dataset_dir`")]
    if isinstance(datalist, dict):
        problems += [Problem(*error.args) for error in alias_errors(datalist, dataset_dir)]
    cases = _cases(datalist, lists or LISTS) if isinstance(datalist, dict) else []
    classes = _classes(datalist) if cases else None
    threshold = datalist.get("label_threshold") if classes else None
    orientation = _orientation(datalist) if cases else None
    for case in tqdm(cases, desc="checking", unit="case", disable=not progress):
        problems += _case_problems(case, dataset_dir, classes, threshold, orientation)
    return problems


def check_images(paths: Iterable[str | os.PathLike[str]]) -> list[Problem]:
    """Check images that have no labels, before inference; the same checks as `check_datalist` makes of an image.

    Example:
        >>> [(problem.file, problem.cause) for problem in check_images(["nowhere.nii.gz"])]
        [('nowhere.nii.gz', 'the file is missing')]
    """
    return [problem for path in paths for problem in _load(os.fspath(path))[1]]


def _cases(datalist: dict[str, Any], lists: Iterable[str]) -> list[Case]:
    """Return the readable cases; the image of an unlabeled case that `monitor` also names is read only once."""
    cases: dict[tuple[str, str | None], Case] = {}
    for key in lists:
        items = datalist.get(key)
        for item in items if isinstance(items, list) else ():
            # Items whose paths are malformed are reported by the check of the structure.
            if isinstance(item, dict) and all(_is_path(item[field]) for field in ("image", "label") if field in item):
                case = Case(item.get("image", ""), item.get("label"), key == "labeled")
                cases.setdefault((case.image, case.label), case)
    labeled = {image for image, label in cases if label}
    return [case for case in cases.values() if case.image and (case.label or case.image not in labeled)]


def _classes(datalist: dict[str, Any]) -> Classes | None:
    """Return the class of each raw label value; None where the structure, which is checked elsewhere, tells none."""
    labels = datalist.get("labels")
    if not isinstance(labels, dict) or not all(map(str.isdecimal, labels)) or any(label_value_mistakes(datalist)):
        return None
    return classes_by_value(datalist)


def _orientation(datalist: dict[str, Any]) -> str | None:
    """Return the orientation to compare in; None where the structure, which is checked elsewhere, tells none."""
    return None if any(orientation_mistakes(datalist)) else datalist.get("orientation")


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and bool(value) and path_error(value) is None


def _case_problems(
    case: Case,
    root: str | os.PathLike[str],
    classes: Classes | None,
    threshold: float | None,
    orientation: str | None,
) -> list[Problem]:
    try:
        image_file = join_inside(root, case.image)
        label_file = join_inside(root, case.label) if case.label else None
    except DatalistError as error:
        return [Problem(*error.args)]
    image, problems = _load(image_file)
    if label_file is None:
        return problems
    label, label_problems = _load(label_file)
    problems += label_problems
    if label is not None and not label_problems:
        voxels = map_label_values(label.numpy(), None, threshold)
        problems += _value_problems(voxels, label_file, classes, case.needs_foreground)
    if image is not None and label is not None:
        problems += _pair_problems(image, label, image_file, label_file, orientation)
    return problems


def _load(file: str) -> tuple[MetaTensor | None, list[Problem]]:
    """Load a file, or not where its geometry is unusable, and return what is wrong with it."""
    if not os.path.exists(file):
        return None, [Problem(file, "the file is missing", "add it or take the case out of the datalist")]
    try:
        # A 4D film can be many gigabytes, so that its header is read before its voxels.
        geometry = _geometry_problems(file, *_header(file)) if file.lower().endswith(NIFTI) else []
        if geometry:
            return None, geometry
        with large_pictures():
            image = LoadImage(image_only=True)(file)
        geometry = _geometry_problems(file, image.shape, image.affine.numpy())
    # Damaged bytes make readers raise nearly anything (OSError, EOFError, zlib.error, struct.error, MemoryError, ...),
    # and one damaged file must not hide what is wrong with the others.
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        # ITK first tells where in its own source, and the reason last.
        reason = lines[-1 if "ITK" in lines[0] else 0]
        cause = f"cannot be read to its end ({type(error).__name__}: {reason[:120]})"
        return None, [Problem(file, cause, "the file is damaged or not an image: copy or export it again")]
    return (None, geometry) if geometry else (image, list(_voxel_problems(file, image)))


def _header(file: str) -> tuple[tuple[int, ...], np.ndarray]:
    image: Any = nibabel.load(file)
    return image.shape, image.affine


def _geometry_problems(file: str, shape: Sequence[int], affine: np.ndarray) -> list[Problem]:
    if len(shape) not in (2, 3):
        sizes = " x ".join(map(str, shape))
        return [Problem(file, f"is {len(shape)}D ({sizes}), not 2D or 3D", "split it into one file a volume")]
    if not np.isfinite(affine).all():
        return [Problem(file, "the affine has values that are not finite", "export the file again with its geometry")]
    if np.linalg.matrix_rank(affine[:-1, :-1]) < len(affine) - 1:
        return [Problem(file, "the affine is singular: some axis has no length", "export it again with its spacing")]
    return []


def _voxel_problems(file: str, image: MetaTensor) -> Iterator[Problem]:
    bad = int((~torch.isfinite(image.as_tensor())).sum())
    if bad:
        yield Problem(file, f"{bad} voxels are NaN or infinite", "replace them by finite values or export it again")


def _value_problems(
    voxels: np.ndarray, file: str, classes: Classes | None, needs_foreground: bool
) -> Iterator[Problem]:
    foreign = foreign_values(voxels, classes) if classes else []
    if not np.array_equal(voxels, voxels.round()):
        yield Problem(file, "label values are not integers", "resample labels with nearest-neighbor interpolation")
    elif classes and foreign:
        values = ", ".join(f"{value:g}" for value in foreign[:5]) + (", ..." if len(foreign) > 5 else "")
        cause = f"label values {values} are not in {_described(classes)}"
        yield Problem(file, cause, "map them to classes, or add the classes to `labels`")
    elif needs_foreground and not _has_foreground(voxels, classes):
        yield Problem(file, "the label of a labeled case is all background", "annotate it or move it to `unlabeled`")


def _described(classes: Classes) -> str:
    if all(raw == target for raw, target in classes.items()):
        return f"`labels` (0 to {len(classes) - 1})"
    return f"`label_values` ({', '.join(map(str, classes))})"


def _has_foreground(voxels: np.ndarray, classes: Classes | None) -> bool:
    background = [raw for raw, target in classes.items() if target == 0] if classes else [0]
    return not bool(np.isin(voxels, background).all())


def _pair_problems(
    image: MetaTensor, label: MetaTensor, image_file: str, label_file: str, orientation: str | None
) -> Iterator[Problem]:
    if orientation and image.ndim == label.ndim == 3:
        image, label = reoriented(image, orientation), reoriented(label, orientation)
        sizes, label_sizes = tuple(image.shape), tuple(label.shape)
    else:
        # The spatial shape, because a 2D color image has a channel axis that its label lacks.
        sizes, label_sizes = (tuple(map(int, item.meta["spatial_shape"])) for item in (image, label))
    name = os.path.basename(image_file)
    if sizes != label_sizes:
        cause = f"its shape {label_sizes} is not {sizes}, the shape of its image {name}"
        yield Problem(label_file, cause, "pair the right files, or resample the label onto the image")
        return
    difference = float((image.affine - label.affine).abs().max())
    if difference > AFFINE_TOLERANCE:
        cause = f"its affine differs by up to {difference:.3g} from that of its image {name}"
        yield Problem(label_file, cause, "copy the image's affine if the voxels match, or resample the label")
