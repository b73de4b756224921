# SPDX-License-Identifier: Apache-2.0
"""Plain folders: images and labels in two, or in one with names that tell them apart."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from metassl_monai.data import DatalistError

from .found import Case, Found
from .naming import bare_label, match, nearest
from .scans import Scan, scans_in

__all__ = ["read_folders"]

FORMATS = "NIfTI, NRRD, MHA, folders of DICOM slices, PNG, JPEG or TIFF"


def read_folders(
    images: Path, labels: Path | None, unlabeled: Sequence[Path], suffix: str | None, exclude: Sequence[Path]
) -> Found:
    """Return the cases in folders, with the label of each image that has one.

    Args:
        images: folder of the images; and of the labels, where ``labels`` is None.
        labels: folder of the labels.
        unlabeled: further folders of images without label.
        suffix: what the names of labels end with, in place of the usual words such as ``_seg``.
        exclude: folders that hold neither.

    Raises:
        DatalistError: if a folder is missing or empty, a label has no image, or an image has two labels.
    """
    apart = [*exclude, *([labels] if labels and labels != images else []), *(f for f in unlabeled if f != images)]
    scans = _some(images, scans_in(images, apart))
    if labels is None or labels == images:
        label_scans = [scan for scan in scans if bare_label(scan.key, suffix) != scan.key]
        scans = [scan for scan in scans if scan not in label_scans]
        if not label_scans:
            remedy = "pass --labels FOLDER, or --suffix with what the names of labels end with"
            raise DatalistError(images, f"none of the {len(scans)} files is named as a label", remedy)
    else:
        label_scans = _some(labels, scans_in(labels, exclude))
    _refuse_twins([*scans])
    cases = _labeled_cases(scans, label_scans, suffix, labels or images)
    for folder in unlabeled:
        cases += _further_cases(folder, cases, [*exclude, *([labels] if labels else [])])
    return Found("folder", cases)


def _some(folder: Path, scans: list[Scan]) -> list[Scan]:
    if not scans:
        raise DatalistError(folder, "holds no image", f"name a folder with {FORMATS}")
    return scans


def _refuse_twins(scans: Sequence[Scan]) -> None:
    seen: dict[str, Scan] = {}
    for scan in scans:
        if scan.key in seen:
            cause = f"has the same name as {seen[scan.key].path.name} in its folder"
            raise DatalistError(scan.path, cause, "keep one of them, or rename it")
        seen[scan.key] = scan


def _labeled_cases(scans: list[Scan], labels: list[Scan], suffix: str | None, where: Path) -> list[Case]:
    _refuse_twins(labels)
    pairs = match([label.key for label in labels], [scan.key for scan in scans], suffix)
    strangers = [label for label in labels if label.key not in pairs]
    if strangers:
        raise _stranger_error(strangers, labels, scans)
    by_image: dict[str, list[Path]] = defaultdict(list)
    for label in labels:
        by_image[pairs[label.key]].append(label.path)
    for key, files in by_image.items():
        if len(files) > 1:
            cause = f"{' and '.join(file.name for file in files[:2])} are both labels of the image {key}"
            raise DatalistError(where, cause, "keep one, or merge them into one label map with a value a structure")
    return [Case(scan.key, (scan.path,), next(iter(by_image.get(scan.key, [])), None)) for scan in scans]


def _stranger_error(strangers: list[Scan], labels: list[Scan], scans: list[Scan]) -> DatalistError:
    first = strangers[0]
    near = nearest(first.key, (scan.key for scan in scans))
    if len(strangers) == len(labels):
        cause = f"no label has an image of its name; the image nearest to this one is {near}"
    else:
        others = f", like {len(strangers) - 1} more labels" if len(strangers) > 1 else ""
        cause = f"the label matches no image{others}; the nearest is {near}"
    remedy = "name labels like their images, with or without _seg at the end; or swap --images and --labels"
    return DatalistError(first.path, cause, remedy)


def _further_cases(folder: Path, cases: list[Case], exclude: Sequence[Path]) -> list[Case]:
    """Return the images of a further folder that are not known yet; a name that is taken gets the folder's in front."""
    known = {path.resolve() for case in cases for path in case.images}
    scans = [scan for scan in _some(folder, scans_in(folder, exclude)) if scan.path.resolve() not in known]
    _refuse_twins(scans)
    taken = {case.name for case in cases}
    names = {scan.key: scan.key if scan.key not in taken else f"{folder.name}/{scan.key}" for scan in scans}
    return [Case(names[scan.key], (scan.path,)) for scan in scans]
