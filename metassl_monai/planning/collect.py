# SPDX-License-Identifier: Apache-2.0
"""From what people have to a datalist: the reading half of preparing one's own data."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from metassl_monai.data import DatalistError, write_datalist

from .division import divide_cases
from .folders import read_folders
from .found import Case, Found
from .label_maps import class_table, raw_values
from .label_names import read_label_names
from .subjects import name_subjects, shared_beginnings

__all__ = ["Collected", "collect_folder"]


class Collected(NamedTuple):
    """A datalist that was written, and what there is to say about it."""

    datalist: Path
    dataset_dir: Path  # the folder that its paths are relative to
    layout: str  # how the data lay there
    cases: dict[str, int]  # number of cases in each list
    subjects: dict[str, int]  # number of subjects in each list
    channels: tuple[str, ...]  # names; empty where images have one channel
    spacing_known: bool  # whether files state the size of their voxels
    remarks: tuple[str, ...]  # what the user should know


def collect_folder(
    images: Path,
    labels: Path | None = None,
    *,
    unlabeled: Sequence[Path] = (),
    out: Path,
    suffix: str | None = None,
    subject: str | None = None,
    label_names: Sequence[str] = (),
    ignore: int | None = None,
    validation: int | None = None,
    seed: int = 0,
) -> Collected:
    """Find out which images and labels lie in folders and write ``datalist.json``.

    Every annotation is read to its end for its values; of images only the headers are.

    Args:
        images: folder of the images.
        labels: folder of the labels, or None where they lie beside the images.
        unlabeled: further folders of images without label.
        out: folder of the datalist; made if it is not there.
        suffix: what names of labels end with, such as ``"_roi"``, in place of the usual words.
        subject: a regular expression whose first group is the subject, see `name_subjects`.
        label_names: ``"1=aorta"``, or a file that names label values.
        ignore: the label value of voxels that nobody annotated.
        validation: number of labeled subjects to hold out, see `divide_cases`.
        seed: of the draw of validation subjects.

    Raises:
        DatalistError: with file, cause and remedy, for the first thing that is wrong. Nothing is written.

    Example:
        >>> import tempfile
        >>> from metassl_monai.data import make_phantom
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = make_phantom(folder, cases=4, labeled=1, validation=1, test=1, size=(32, 32, 3))
        ...     collected = collect_folder(Path(folder, "images"), Path(folder, "labels"), out=Path(folder, "out"))
        >>> collected.cases["labeled"], collected.cases["validation"]
        (3, 1)
    """
    images, out = Path(images), Path(out)
    found = read_folders(images, labels, unlabeled, suffix, [out])
    cases = name_subjects(found.cases, subject, images)
    lists, remarks = divide_cases(cases, validation, seed, labels or images)
    annotated = {case.label: raw_values(case.label) for of_one in lists.values() for case in of_one if case.label}
    table = class_table(annotated, read_label_names(label_names), ignore, labels or images)
    root = _common_folder(path for case in cases for path in (*case.images, case.label) if path)
    datalist = _datalist(found, lists, table, root, {"seed": seed})
    if ignore is not None:
        datalist["ignore"] = ignore
    write_datalist(datalist, out / "datalist.json")
    remarks += [remark for remark in (shared_beginnings(cases), *_list_remarks(lists)) if remark]
    return Collected(
        datalist=out / "datalist.json",
        dataset_dir=root,
        layout=found.layout,
        cases={key: len(of_one) for key, of_one in lists.items()},
        subjects={key: len({case.subject for case in of_one}) for key, of_one in lists.items()},
        channels=found.channels,
        spacing_known=found.spacing_known,
        remarks=(*found.remarks, *remarks),
    )


def _common_folder(paths: Iterable[Path]) -> Path:
    folders = [os.path.abspath(path.parent) for path in paths]
    if len({Path(folder).anchor for folder in folders}) > 1:
        raise DatalistError(folders[0], f"is on another drive than {folders[-1]}", "put all files below one folder")
    return Path(os.path.commonpath(folders))


def _datalist(
    found: Found, lists: dict[str, list[Case]], table: dict[str, Any], root: Path, source: dict[str, Any]
) -> dict[str, Any]:
    items = {key: [_item(case, root, key) for case in cases] for key, cases in lists.items()}
    counts = {key: len(cases) for key, cases in lists.items()}
    about = {"reader": "folder", "layout": found.layout, **source, "counts": counts}
    if not found.spacing_known:
        about["spacing"] = "unknown"
    channels = {"channels": [*found.channels]} if found.channels else {}
    return {"name": root.name, **table, **channels, **items, "source": about}


def _item(case: Case, root: Path, key: str) -> dict[str, Any]:
    files = [Path(os.path.relpath(os.path.abspath(path), root)).as_posix() for path in case.images]
    item = {"image": files if len(files) > 1 else files[0], "subject": case.subject, "case": case.name}
    if case.label and key != "unlabeled":
        item["label"] = Path(os.path.relpath(os.path.abspath(case.label), root)).as_posix()
    return item


def _list_remarks(lists: dict[str, list[Case]]) -> Iterable[str]:
    if not lists["unlabeled"]:
        yield "no image is without label: only supervised learning is possible; name more images with --unlabeled"
    if len({case.subject for case in lists["labeled"]}) == 1:
        yield "one labeled subject only: results will depend on which it is; annotate a second one if you can"
    if not lists["validation"]:
        yield "no subject is held out for validation: the last network is kept, and its quality is not measured"
