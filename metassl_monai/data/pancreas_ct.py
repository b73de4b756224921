# SPDX-License-Identifier: Apache-2.0
"""Reader of Pancreas-CT, the NIH's collection of contrast-enhanced abdominal CT: DICOM series and one organ a case.

Source of the data: H. Roth et al., "Data from Pancreas-CT", The Cancer Imaging Archive, 2016,
doi:10.7937/K9/TCIA.2016.tNB1kqBU. Source of the split: the four folds by case number that the semi-supervised papers
use, which predate the withdrawal of cases 25 and 70: both are copies of case 2, cropped differently, and are left out
here, since a copy of a training case must not be tested on. 80 cases remain.

Confirmed in public scripts that convert the collection: the folder and file names, the withdrawn cases, that the axes
of the series' pixels point to the left and to the front and those of the labels to the left, to the front and down. So
slices stacked upward are upside down against their labels. Read through ITK both have the same axes, and the datalist's
``orientation`` makes sure of it. Not confirmed: that the labels have the origin of their series, which
``check_datalist`` compares.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from .problems import DatalistError
from .split import Item, divide, hold_out, published_split

__all__ = ["prepare_pancreas_ct"]

LABELS = {"0": "background", "1": "pancreas"}
LAYOUT = "PANCREAS_NNNN/STUDY/SERIES/*.dcm and, in any folder, labelNNNN.nii.gz"
WITHDRAWN = ("PANCREAS_0025", "PANCREAS_0070")
FOLDS = (0, 1, 2, 3)


def prepare_pancreas_ct(
    source: str | os.PathLike[str], labeled: int, seed: int | str = "published", validation: int = 0, fold: int = 0
) -> dict[str, Any]:
    """Describe the official release of Pancreas-CT as a datalist; nothing is written.

    The layout is ``Pancreas-CT/PANCREAS_NNNN/STUDY/SERIES/*.dcm``, as TCIA's tool downloads it, and
    ``labelNNNN.nii.gz`` in a folder of their own. The ``image`` of an item is the folder of its series. Labels: 0
    background, 1 pancreas.

    Args:
        source: a folder above both, series and labels; the datalist's paths are relative to it.
        labeled: number of labeled cases, from 1 to the number of training cases; all others are unlabeled.
        seed: ``"published"`` for the first ones of the published list, or an integer to draw them at random, without
            replacement, from the training cases that are on disk.
        validation: number of training cases to hold out, since no validation list was published: the last ones of
            the published list that are on disk.
        fold: which of the four folds is tested on, from 0 to 3.

    Returns:
        A datalist. Its ``orientation`` is that in which image and label are compared; ``source["absent"]`` counts, for
        each list, the published cases that are not on disk.

    Raises:
        DatalistError: if nothing like Pancreas-CT is in ``source``, a case has two series or two labels, a labeled
            case is not there, an annotation is missing, or ``labeled``, ``seed``, ``validation`` or ``fold`` is out of
            range.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     series = Path(folder, "Pancreas-CT", "PANCREAS_0001", "1.2", "1.3")
        ...     series.mkdir(parents=True)
        ...     series.joinpath("1-001.dcm").touch()
        ...     Path(folder, "label0001.nii.gz").touch()
        ...     datalist = prepare_pancreas_ct(folder, labeled=1)
        >>> datalist["labeled"][0]["image"]
        'Pancreas-CT/PANCREAS_0001/1.2/1.3'
    """
    root = Path(source)
    if fold not in FOLDS:
        raise DatalistError(root, f"there is no fold {fold}", "choose one from 0 to 3")
    published = published_split("pancreas_ct")
    test = [case for case in published[f"fold {fold}"] if case not in WITHDRAWN]
    train = [case for case in published["all"] if case not in (*test, *WITHDRAWN)]
    cases = _cases(root, {*train, *test})
    if not cases:
        raise DatalistError(root, "holds no series of Pancreas-CT", f"name the folder that holds {LAYOUT}")
    train, held_out = hold_out(train, cases, validation, labeled, root)
    lists = divide({"train": train, "validation": held_out, "test": test}, cases, labeled, seed, root)
    about = {"name": "pancreas_ct", "labels": dict(LABELS), "orientation": "RAS"}
    return {**about, **lists, "source": {"reader": "pancreas_ct", "fold": fold, **lists["source"]}}


def _cases(root: Path, published: set[str]) -> dict[str, list[Item]]:
    labels = _once({file: file.name for file in root.rglob("label[0-9][0-9][0-9][0-9].nii.gz")})
    folders = {folder: folder.parents[1].name for folder in root.glob("**/PANCREAS_*/*/*") if _is_series(folder)}
    series = {case: folder for case, folder in _once(folders).items() if case in published}
    return {case: [_item(root, case, folder, labels)] for case, folder in sorted(series.items())}


def _is_series(folder: Path) -> bool:
    return next(folder.glob("*.dcm"), None) is not None


def _once(names: dict[Path, str]) -> dict[str, Path]:
    """Return the path of each name, which must be one only."""
    paths: dict[str, Path] = {}
    for path, name in sorted(names.items()):
        if name in paths:
            raise DatalistError(path, f"{paths[name]} is {name} too", "keep one of them in the folder")
        paths[name] = path
    return paths


def _item(root: Path, case: str, series: Path, labels: dict[str, Path]) -> Item:
    name = f"label{case.removeprefix('PANCREAS_')}.nii.gz"
    # Where it is missing, the message about it names the folder of the others.
    folder = next(iter(labels.values())).parent if labels else root
    label = labels.get(name, folder / name)
    paths = {"image": series.relative_to(root).as_posix(), "label": label.relative_to(root).as_posix()}
    return {**paths, "subject": case, "case": case}
