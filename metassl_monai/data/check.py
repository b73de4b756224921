# SPDX-License-Identifier: Apache-2.0
"""Read every file of a data set and report all that is wrong with it at once."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import nibabel
import numpy as np
import torch
from monai.data import MetaTensor
from tqdm import tqdm

from metassl_monai.ignore import IGNORE

from .aliases import alias_errors
from .datalist import LISTS, DatalistError, datalist_errors, join_inside, parse_json, path_error
from .dicom import series_error
from .geometry import SAME_GRID, grid_distance
from .label_values import label_classes, label_mistake, label_value_mistakes
from .orientation import orientation_mistakes, reoriented
from .pictures import is_picture
from .reading import is_nifti, read_scan

__all__ = ["Problem", "check_datalist", "check_images"]


Kind = Literal["volume", "picture"]

LARGEST = 1e18
"""Voxels above this overflow float32 where an image is normalized: its range fits, and its variance does not."""


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
    kind: Kind | None = None,
) -> list[Problem]:
    """Check the structure of a datalist and read every file that it names; never raises for bad data.

    A file is wrong if it is missing, cannot be read to its end, is neither 2D nor 3D, is a volume in color or of
    complex numbers, has NaN or infinite voxels, or such large ones that float32 cannot hold their variance, or a
    non-finite or singular affine. A label is also wrong if its shape is not the image's or a corner of it lies more
    than 1 % of a voxel beside the image's, if a value is not an integer or stands for none of the ``labels`` (as it is,
    or by the datalist's ``label_values`` or ``label_threshold``) and is not the datalist's ``ignore``, if nobody
    annotated any voxel, and in ``labeled`` if it is all background. With an ``orientation`` in the datalist, shapes and
    affines are compared after both were turned into it. An image may be the folder of a DICOM series, and is wrong if
    its slices are not one evenly spaced volume. A file that two items name by links is wrong in any list.

    Args:
        path: the datalist.
        dataset_dir: the folder that its paths are relative to.
        lists: the lists whose files are read; all by default. The structure is always checked whole.
        progress: show a progress bar with the remaining time.
        kind: what the network takes, ``"volume"`` or ``"picture"``; files of the other kind are wrong then.

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
    # a structure that is wrong itself tells no classes and no orientation to compare with
    known = datalist if cases and not any(_mistakes(datalist)) else None
    for case in tqdm(cases, desc="checking", unit="case", disable=not progress):
        problems += _case_problems(case, dataset_dir, known, kind)
    return problems


def check_images(paths: Iterable[str | os.PathLike[str]], kind: Kind | None = None) -> list[Problem]:
    """Check images that have no labels, before inference; the same checks as `check_datalist` makes of an image.

    Example:
        >>> [(problem.file, problem.cause) for problem in check_images(["nowhere.nii.gz"])]
        [('nowhere.nii.gz', 'the file is missing')]
    """
    return [problem for path in paths for problem in _load(os.fspath(path), kind)[1]]


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


def _mistakes(datalist: dict[str, Any]) -> Iterator[Any]:
    labels = datalist.get("labels")
    if not isinstance(labels, dict) or not all(map(str.isdecimal, labels)):
        yield "labels"
    yield from label_value_mistakes(datalist)
    yield from orientation_mistakes(datalist)


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and bool(value) and path_error(value) is None


def _case_problems(
    case: Case, root: str | os.PathLike[str], datalist: dict[str, Any] | None, kind: Kind | None
) -> list[Problem]:
    try:
        image_file = join_inside(root, case.image)
        label_file = join_inside(root, case.label) if case.label else None
    except DatalistError as error:
        return [Problem(*error.args)]
    image, problems = _load(image_file, kind)
    if label_file is None:
        return problems
    label, label_problems = _load(label_file, None)
    problems += label_problems
    if label is not None and not label_problems and datalist:
        problems += _value_problems(label.numpy(), label_file, datalist, case.needs_foreground)
    if image is not None and label is not None:
        orientation = datalist.get("orientation") if datalist else None
        problems += _pair_problems(image, label, image_file, label_file, orientation)
    return problems


def _load(file: str, kind: Kind | None) -> tuple[MetaTensor | None, list[Problem]]:
    """Load a file, or not where its geometry is unusable, and return what is wrong with it."""
    if not os.path.exists(file):
        return None, [Problem(file, "the file is missing", "add it or take the case out of the datalist")]
    try:
        # A 4D film can be many gigabytes, so that its header is read before its voxels.
        unusable = list(_header_problems(file))
        if unusable:
            return None, unusable
        image = read_scan(file)
        unusable = [*_geometry_problems(file, image.shape, image.affine.numpy()), *_kind_problems(file, image, kind)]
    # Damaged bytes make readers raise nearly anything (OSError, EOFError, zlib.error, struct.error, MemoryError, ...),
    # and one damaged file must not hide what is wrong with the others.
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        # ITK first tells where in its own source, and the reason last.
        reason = lines[-1 if "ITK" in lines[0] else 0]
        cause = f"cannot be read to its end ({type(error).__name__}: {reason[:120]})"
        return None, [Problem(file, cause, "the file is damaged or not an image: copy or export it again")]
    return (None, unusable) if unusable else (image, list(_voxel_problems(file, image)))


def _header_problems(file: str) -> Iterator[Problem]:
    if os.path.isdir(file):
        error = series_error(file)
        if error:
            yield Problem(*error.args)
    elif is_nifti(file):
        yield from _nifti_problems(file)


def _nifti_problems(file: str) -> Iterator[Problem]:
    image: Any = nibabel.load(file)
    dtype = image.get_data_dtype()
    if dtype.kind not in "biuf":
        kind = "complex numbers" if dtype.kind == "c" else "colors"
        yield Problem(file, f"its voxels are {kind}", "export it with one number a voxel")
    yield from _geometry_problems(file, image.shape, image.affine)


def _kind_problems(file: str, image: MetaTensor, kind: Kind | None) -> Iterator[Problem]:
    if kind == "volume" and is_picture(file):
        yield Problem(file, "is a picture, and the network takes volumes", "convert it to NIfTI with its voxel size")
    elif kind == "volume" and image.ndim != 3:
        sizes = " x ".join(map(str, image.shape))
        yield Problem(file, f"is 2D ({sizes}), and the network takes volumes", "save it with a third axis of length 1")
    elif kind == "picture" and not is_picture(file):
        yield Problem(file, "is not a picture", "convert it to PNG or JPEG")


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
    voxels = image.as_tensor()
    bad = int((~torch.isfinite(voxels)).sum())
    if bad:
        yield Problem(file, f"{bad} voxels are NaN or infinite", "replace them by finite values or export it again")
    elif voxels.abs().max() > LARGEST:
        cause = f"has voxels of up to {voxels.abs().max():.3g}, whose squares overflow float32"
        yield Problem(file, cause, "replace them by values that mean something, such as the minimum")


def _value_problems(
    voxels: np.ndarray, file: str, datalist: dict[str, Any], needs_foreground: bool
) -> Iterator[Problem]:
    mistake = label_mistake(voxels, datalist)
    if mistake:
        yield Problem(file, *mistake)
        return
    if not (needs_foreground or "ignore" in datalist):
        return
    classes = label_classes(voxels, datalist, file)
    if (classes == IGNORE).all():
        cause = f"nobody annotated a voxel of it: all are {datalist['ignore']}, the `ignore` of the datalist"
        yield Problem(file, cause, "annotate it, or list the image in `unlabeled`")
    elif needs_foreground and not (classes > 0).any():
        yield Problem(file, "the label of a labeled case is all background", "annotate it or move it to `unlabeled`")


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
    distance = grid_distance(image.affine, label.affine, sizes)
    if distance > SAME_GRID:
        cause = f"lies up to {distance:.3g} voxels beside its image {name}"
        yield Problem(label_file, cause, "copy the image's affine if the voxels match, or resample the label")
