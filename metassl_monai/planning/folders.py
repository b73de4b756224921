# SPDX-License-Identifier: Apache-2.0
"""Plain folders: images and labels in two, or in one with names that tell them apart."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from metassl_monai.data import DatalistError

from .channel_files import channel_endings, group_channels
from .found import Case, Found
from .label_maps import refuse_swapped
from .naming import bare_label, match, nearest
from .scans import Scan, scans_in, stem_of

__all__ = ["further_cases", "image_cases", "read_folders"]

FORMATS = "NIfTI, NRRD, MHA, folders of DICOM slices, PNG, JPEG or TIFF"


def read_folders(images: Path, labels: Path | None, suffix: str | None, exclude: Sequence[Path]) -> Found:
    """Return the cases in folders, with the label of each image that has one.

    Args:
        images: folder of the images; and of the labels, where ``labels`` is None.
        labels: folder of the labels.
        suffix: what the names of labels end with, in place of the usual words such as ``_seg``.
        exclude: folders that hold neither.

    Raises:
        DatalistError: if a folder is missing or empty, a label has no image, an image has two labels, a case lacks a
            channel, or images and labels were swapped.
    """
    if labels is None or labels == images:
        scans, label_scans = _apart(images, scans_in(images, exclude), suffix)
    else:
        scans, label_scans = _some(images, [*exclude, labels]), _some(labels, [*exclude, images])
    endings = channel_endings([label.key for label in label_scans], [scan.key for scan in scans], suffix)
    cases = group_channels(scans, endings, images)
    by_image = _labels_by_image(cases, label_scans, suffix, labels or images)
    cases = [case._replace(label=by_image.get(case.name)) for case in cases]
    return Found("folder", cases, endings if len(endings) > 1 else (), endings=endings)


def further_cases(folder: Path, known: Sequence[Case], endings: Sequence[str], exclude: Sequence[Path]) -> list[Case]:
    """Return the images of a folder that are not known yet; a name that is taken gets the folder's in front.

    Args:
        folder: the folder.
        known: cases of other folders.
        endings: of the channels, see `group_channels`.
        exclude: folders in it that are left out.

    Raises:
        DatalistError: if the folder is missing or empty, or a case lacks a channel.
    """
    files = {path.resolve() for case in known for path in case.images}
    scans = [scan for scan in _some(folder, exclude) if scan.path.resolve() not in files]
    taken = {case.name for case in known}
    cases = group_channels(scans, endings, folder)
    return [case._replace(name=f"{folder.name}/{case.name}") if case.name in taken else case for case in cases]


def image_cases(images: Sequence[Path], endings: Sequence[str] = ()) -> list[Case]:
    """Return the images in folders and files, in any format, for inference.

    Args:
        images: folders, which are searched with their sub-folders, and files.
        endings: of the channels, as ``collect_folder`` found them.

    Raises:
        DatalistError: if a folder or file is missing, a folder is empty, or a case lacks a channel.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Path(folder, "a.nii.gz").touch()
        ...     [case.name for case in image_cases([Path(folder)])]
        ['a']
    """
    missing = [path for path in images if not path.exists()]
    if missing:
        raise DatalistError(missing[0], "the file or folder is missing", "correct --images")
    files = [Scan(stem_of(Path(path.name)), path) for path in images if path.is_file()]
    cases = group_channels(files, endings, files[0].path.parent) if files else []
    for folder in (path for path in images if path.is_dir()):
        cases += further_cases(folder, cases, endings, ())
    return cases


def _some(folder: Path, exclude: Sequence[Path]) -> list[Scan]:
    scans = scans_in(folder, exclude)
    if not scans:
        raise DatalistError(folder, "holds no image", f"name a folder with {FORMATS}")
    return scans


def _apart(folder: Path, scans: Sequence[Scan], suffix: str | None) -> tuple[list[Scan], list[Scan]]:
    """Return the images and the labels of one folder."""
    labels = [scan for scan in scans if bare_label(scan.key, suffix) != scan.key]
    images = [scan for scan in scans if scan not in labels]
    if not scans:
        raise DatalistError(folder, "holds no image", f"name a folder with {FORMATS}")
    if not labels or not images:
        cause = f"none of the {len(scans)} files is named as {'an image' if labels else 'a label'}"
        raise DatalistError(folder, cause, "pass --labels FOLDER, or --suffix with what the names of labels end with")
    return images, labels


def _labels_by_image(cases: Sequence[Case], labels: Sequence[Scan], suffix: str | None, where: Path) -> dict[str, Path]:
    pairs = match([label.key for label in labels], [case.name for case in cases], suffix)
    found: dict[str, list[Path]] = defaultdict(list)
    for label in labels:
        if label.key in pairs:
            found[pairs[label.key]].append(label.path)
    for case in cases:
        if case.name in found:
            refuse_swapped(case.images[0], found[case.name][0])
            break
    strangers = [label for label in labels if label.key not in pairs]
    if strangers:
        raise _stranger_error(strangers, labels, cases)
    for name, files in found.items():
        if len(files) > 1:
            cause = f"{' and '.join(file.name for file in files[:2])} are both labels of the image {name}"
            raise DatalistError(where, cause, "keep one, or merge them into one label map with a value a structure")
    return {name: files[0] for name, files in found.items()}


def _stranger_error(strangers: Sequence[Scan], labels: Sequence[Scan], cases: Sequence[Case]) -> DatalistError:
    first = strangers[0]
    near = nearest(first.key, (case.name for case in cases))
    if len(strangers) == len(labels):
        cause = f"no label has an image of its name; the image nearest to this one is {near}"
    else:
        others = f", like {len(strangers) - 1} more" if len(strangers) > 1 else ""
        cause = f"the label matches no image{others}; the nearest is {near}"
    return DatalistError(first.path, cause, "name labels like their images, with or without _seg at the end")
