# SPDX-License-Identifier: Apache-2.0
"""Read every file of a data set and report all that is wrong with it at once."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from monai.data import MetaTensor

from metassl_monai.ignore import IGNORE

from .aliases import alias_problems
from .channels import GRID_REMEDY, channel_problems, grid_mistake, image_files
from .datalist import join_inside, parse_json
from .datalist_structure import LISTS, datalist_problems, path_error
from .file_check import Kind, load_checked
from .geometry import SAME_GRID, grid_distance
from .label_values import label_classes, label_problem, label_value_problems
from .orientation import orientation_problems, reoriented
from .parallel import for_each_case
from .problems import DatalistError, Problem

__all__ = ["Kind", "check_datalist", "check_images"]


class Case(NamedTuple):
    """The files of one case, relative to the folder of the data set."""

    images: tuple[str, ...]  # one, or one a channel
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

    A file is wrong if it is missing, cannot be read to its end, claims to hold more than it can or than the memory of
    this machine can read, holds more than it claims, is neither 2D nor 3D, is a volume in color or of
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
        return [error.problem]
    problems = list(datalist_problems(datalist, path))
    unknown = [key for key in lists or () if key not in LISTS]
    problems += [Problem(os.fspath(path), f"has no list {key!r}", f"use {', '.join(LISTS)}") for key in unknown]
    if not os.path.isdir(dataset_dir):
        return [*problems, Problem(os.fspath(dataset_dir), "the folder is missing", "correct `dataset_dir`")]
    if isinstance(datalist, dict):
        problems += alias_problems(datalist, dataset_dir)
    cases = _cases(datalist, lists or LISTS) if isinstance(datalist, dict) else []
    # a structure that is wrong itself tells no classes and no orientation to compare with
    known = datalist if cases and not any(_mistakes(datalist)) else None
    if cases and not any(os.path.exists(os.path.join(dataset_dir, path)) for case in cases for path in case.images):
        cause = f"holds none of the {len(cases)} images that {os.fspath(path)} names, such as {cases[0].images[0]}"
        return [*problems, Problem(os.fspath(dataset_dir), cause, "give as `dataset_dir` the folder that these lie in")]
    # absolute, since ITK changes the working folder for a moment when it loads a module, under the eyes of all threads
    root = os.path.abspath(dataset_dir)
    found = for_each_case(
        lambda case: _case_problems(case, root, known, kind),
        cases,
        lambda case: [os.path.join(root, path) for path in case.images],
        progress,
    )
    return [*problems, *chain.from_iterable(found)]


def check_images(
    paths: Iterable[str | os.PathLike[str] | Sequence[str]],
    kind: Kind | None = None,
    channels: int = 1,
    progress: bool = False,
) -> list[Problem]:
    """Check images that have no labels, before inference; the same checks as `check_datalist` makes of an image.

    Args:
        paths: a file an image, or a list of them, one a channel.
        kind: what the network takes, ``"volume"`` or ``"picture"``.
        channels: how many channels an image must have.
        progress: show a progress bar with the remaining time.

    Example:
        >>> [(problem.file, problem.cause) for problem in check_images(["nowhere.nii.gz"])]
        [('nowhere.nii.gz', 'the file is missing')]
    """
    images = [[_where_it_is(file) for file in image_files(path)] for path in paths]
    found = for_each_case(lambda files: _load_image(files, kind, channels)[1], images, list, progress, "image")
    return list(chain.from_iterable(found))


def _where_it_is(file: str) -> str:
    return os.path.abspath(file) if os.path.exists(file) else file


def _cases(datalist: dict[str, Any], lists: Iterable[str]) -> list[Case]:
    """Return the readable cases; the image of an unlabeled case that `monitor` also names is read only once."""
    cases: dict[tuple[tuple[str, ...], str | None], Case] = {}
    for key in lists:
        items = datalist.get(key)
        for item in items if isinstance(items, list) else ():
            # Items whose paths are malformed are reported by the check of the structure.
            if isinstance(item, dict) and _are_paths(item.get("image", "x")) and _is_path(item.get("label", "x")):
                case = Case(tuple(image_files(item.get("image", ()))), item.get("label"), key == "labeled")
                cases.setdefault((case.images, case.label), case)
    labeled = {images for images, label in cases if label}
    return [case for case in cases.values() if case.images and (case.label or case.images not in labeled)]


def _mistakes(datalist: dict[str, Any]) -> Iterator[Any]:
    labels = datalist.get("labels")
    if not isinstance(labels, dict) or not all(map(str.isdecimal, labels)):
        yield "labels"
    yield from label_value_problems(datalist, "")
    yield from orientation_problems(datalist, "")
    yield from channel_problems(datalist, "")


def _are_paths(value: Any) -> bool:
    """Whether it is one path, or several of the channels of an image."""
    return all(map(_is_path, value)) and bool(value) if isinstance(value, list) else _is_path(value)


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and bool(value) and path_error(value) is None


def _case_problems(
    case: Case, root: str | os.PathLike[str], datalist: dict[str, Any] | None, kind: Kind | None
) -> list[Problem]:
    try:
        files = [join_inside(root, path) for path in case.images]
        label_file = join_inside(root, case.label) if case.label else None
    except DatalistError as error:
        return [error.problem]
    image, problems = _load_image(files, kind, len(datalist["channels"]) if datalist and "channels" in datalist else 1)
    if label_file is None:
        return problems
    label, label_problems = load_checked(label_file, None)
    problems += label_problems
    if label is not None and not label_problems and datalist:
        problems += _value_problems(label.numpy(), label_file, datalist, case.needs_foreground)
    if image is not None and label is not None:
        orientation = datalist.get("orientation") if datalist else None
        problems += _pair_problems(image, label, files[0], label_file, orientation)
    return problems


def _load_image(files: Sequence[str], kind: Kind | None, channels: int) -> tuple[MetaTensor | None, list[Problem]]:
    """Load the first channel of an image, and return what is wrong with any channel, or with one beside the first."""
    first, problems = load_checked(files[0], kind, channels if len(files) == 1 else 1)
    for file in files[1:]:
        other, its_problems = load_checked(file, kind)
        problems += its_problems
        if first is not None and other is not None:
            name = os.path.basename(files[0])
            cause = grid_mistake((first.shape, first.affine.numpy()), (other.shape, other.affine.numpy()), name)
            problems += [Problem(file, cause, GRID_REMEDY)] if cause else []
    return first, problems


def _value_problems(
    voxels: np.ndarray, file: str, datalist: dict[str, Any], needs_foreground: bool
) -> Iterator[Problem]:
    problem = label_problem(voxels, datalist, file)
    if problem:
        yield problem
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
