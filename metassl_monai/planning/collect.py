# SPDX-License-Identifier: Apache-2.0
"""From what people have to a datalist: the reading half of preparing one's own data."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from metassl_monai.data import DatalistError, write_datalist
from metassl_monai.data.datalist import join_inside
from metassl_monai.progress import Progress

from .classes import class_table, seldom_annotated
from .division import divide_cases
from .found import Case, Found
from .headers import check_headers
from .label_maps import raw_values
from .label_names import read_label_names
from .layouts import read_layout
from .subjects import name_subjects, shared_beginnings

__all__ = ["Collected", "collect_folder"]

Lists = dict[str, list[Case]]


class Collected(NamedTuple):
    """A datalist that was written, and what there is to say about it."""

    datalist: Path
    dataset_dir: Path  # the folder that its paths are relative to
    layout: str  # how the data lay there
    cases: dict[str, int]  # number of cases in each list
    subjects: dict[str, int]  # number of subjects in each list
    channels: tuple[str, ...]  # names; empty where images have one channel, or colors
    endings: tuple[str, ...]  # of names of files, by which channels are told apart; for `image_cases`
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
    kept: Mapping[str, str] | None = None,
) -> Collected:
    """Find out which images and labels lie in folders, in any layout, and write ``datalist.json``.

    Every annotation is read to its end for its values; of images only the headers are. `check_datalist` reads the rest.

    Args:
        images: folder of the images, or a list of cases in JSON, see `read_layout`.
        labels: folder of the labels, or None where they lie beside the images.
        unlabeled: further folders of images without label.
        out: folder of the datalist; made if it is not there.
        suffix: what names of labels end with, such as ``"_roi"``, in place of the usual words.
        subject: a regular expression whose first group is the subject, see `name_subjects`.
        label_names: ``"1=aorta"``, or a file that names label values, see `read_label_names`.
        ignore: the label value of voxels that nobody annotated.
        validation: number of labeled subjects to hold out, see `divide_cases`.
        seed: of the draw of validation subjects.
        kept: the list of each subject that stays in one, in place of a draw.

    Raises:
        DatalistError: with file, cause and remedy, for the first thing that is wrong. No datalist is written then.

    Example:
        >>> import tempfile
        >>> from metassl_monai.data import make_phantom
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = make_phantom(folder, cases=4, labeled=1, validation=1, test=1, size=(32, 32, 3))
        ...     collected = collect_folder(Path(folder, "images"), Path(folder, "labels"), out=Path(folder, "out"))
        >>> collected.cases["labeled"], collected.cases["validation"]
        (3, 1)
    """
    images, labels, out = Path(images), None if labels is None else Path(labels), Path(out)
    found = read_layout(images, labels, [Path(folder) for folder in unlabeled], out, suffix)
    where = labels or images
    cases = name_subjects(found.cases, subject, images)
    axes = check_headers(cases, len(found.channels) or 1)
    if kept is not None:
        cases, validation = _as_kept(cases, kept)
    lists, remarks = divide_cases(cases, validation, seed, where)
    ignored = _ignored(found.ignore, ignore, where)
    names = found.names | read_label_names(label_names)
    values = {} if found.fixed else _annotated(lists)
    table = found.fixed or class_table(values, names, ignored, where)
    root = _common_folder(lists)
    write_datalist(_datalist(found, lists, table, ignored, root, seed), out / "datalist.json")
    further = (shared_beginnings(cases), *_list_remarks(lists), *(seldom_annotated(values, table) if axes == 3 else ()))
    return Collected(
        datalist=out / "datalist.json",
        dataset_dir=root,
        layout=found.layout,
        cases={key: len(of_one) for key, of_one in lists.items()},
        subjects={key: len({case.subject for case in of_one}) for key, of_one in lists.items()},
        channels=found.channels,
        endings=found.endings,
        spacing_known=found.spacing_known,
        remarks=(*found.remarks, *remarks, *filter(None, further)),
    )


def _as_kept(cases: Sequence[Case], kept: Mapping[str, str]) -> tuple[list[Case], int | None]:
    """Put subjects back into their lists; the number of subjects to hold out of the others: none where some are."""
    cases = [case._replace(key=kept.get(str(case.subject), case.key)) if case.label else case for case in cases]
    return cases, None if "validation" in kept.values() else 0


def _ignored(of_layout: int | None, given: int | None, where: Path) -> int | None:
    if None not in (of_layout, given) and of_layout != given:
        cause = f"the value {of_layout} is called `ignore` there, and --ignore is {given}"
        raise DatalistError(where, cause, "leave --ignore out, or make them equal")
    return of_layout if given is None else given


def _annotated(lists: Lists) -> dict[Path, dict[int, int]]:
    labels = (case.label for cases in lists.values() for case in cases)
    files = [label for label in labels if label]
    return {label: raw_values(label) for label in Progress(files, desc="reading labels", unit="file")}


def _files(lists: Lists) -> Iterator[Path]:
    for cases in lists.values():
        for case in cases:
            yield from (*case.images, *([case.label] if case.label else []))


def _common_folder(lists: Lists) -> Path:
    folders = sorted({str(_settled(path).parent) for path in _files(lists)})
    if len({Path(folder).anchor for folder in folders}) > 1:
        raise DatalistError(folders[0], f"is on another drive than {folders[-1]}", "put all files below one folder")
    return Path(os.path.commonpath(folders))


def _settled(path: Path) -> Path:
    """Return a path without links among its folders: a folder of data may be one, and a file keeps its name."""
    absolute = Path(os.path.abspath(path))
    return absolute.parent.resolve() / absolute.name


def _datalist(
    found: Found, lists: Lists, table: dict[str, Any], ignore: int | None, root: Path, seed: int
) -> dict[str, Any]:
    about: dict[str, Any] = {"reader": "folder", "layout": found.layout, "seed": seed}
    about["counts"] = {key: len(cases) for key, cases in lists.items()}
    about |= {"endings": [*found.endings]} if found.endings else {}
    about |= {} if found.spacing_known else {"spacing": "unknown"}
    channels = {"channels": [*found.channels]} if found.channels else {}
    ignored = {} if ignore is None else {"ignore": ignore}
    items = {key: [_item(case, root) for case in cases] for key, cases in lists.items()}
    return {"name": root.name, **table, **channels, **ignored, **items, "source": about}


def _item(case: Case, root: Path) -> dict[str, Any]:
    images = [_relative(path, root) for path in case.images]
    item = {"image": images if len(images) > 1 else images[0], "subject": case.subject, "case": case.name}
    return item | ({"label": _relative(case.label, root)} if case.label else {})


def _relative(path: Path, root: Path) -> str:
    relative = _settled(path).relative_to(root).as_posix()
    join_inside(root, relative)  # refuses a file that is a link out of the folder
    return relative


def _list_remarks(lists: Lists) -> Iterator[str]:
    if not lists["unlabeled"]:
        yield "no image is without label: only supervised learning is possible; name more images with --unlabeled"
    if len({case.subject for case in lists["labeled"]}) == 1:
        yield "one labeled subject only: results will depend on which it is; annotate a second one if you can"
    if not lists["validation"]:
        yield "no subject is held out for validation: the last network is kept, and its quality is not measured"
