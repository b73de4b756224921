# SPDX-License-Identifier: Apache-2.0
"""Reader of LA, the 2018 Left Atrium challenge: late gadolinium-enhanced MR, one annotated cavity a case.

Source of the data: Z. Xiong et al., "A global benchmark of algorithms for segmenting the left atrium from late
gadolinium-enhanced cardiac magnetic resonance imaging", Medical Image Analysis 67, 101832, 2021. Source of the split:
UA-MT (https://github.com/yulequan/UA-MT), which the semi-supervised papers follow: the challenge's 100 annotated
cases as 80 for training and 20 for testing; "2, 4, 8 or 16 labeled" are the first ones of the training list. Source of
the five folds: Dual Networks (arXiv 2505.17690), whose first fold is that split.

Some patients were scanned twice, and nothing in the release says which cases are one patient's. So a case is its own
subject here, as in the papers, and scans of one patient may be in two lists.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from .problems import DatalistError
from .split import Item, divide, hold_out, published_split

__all__ = ["prepare_la"]

LABELS = {"0": "background", "1": "left atrium"}
LABEL_VALUES = {"0": 0, "255": 1}
IMAGE, LABEL = "lgemri.nrrd", "laendo.nrrd"


def prepare_la(
    source: str | os.PathLike[str],
    labeled: int,
    seed: int | str = "published",
    validation: int = 0,
    fold: int | None = None,
) -> dict[str, Any]:
    """Describe the official release of LA as a datalist; nothing is written.

    The layout is ``CASE/lgemri.nrrd`` and ``CASE/laendo.nrrd``, with raw label values 0 and 255, which the datalist's
    ``label_values`` maps to 0 background and 1 left atrium. Cases outside the published split are ignored.

    Args:
        source: the folder of the cases, or a folder above it, such as the release with its ``Training Set``; the
            datalist's paths are relative to it.
        labeled: number of labeled cases, from 1 to the number of training cases; all others are unlabeled.
        seed: ``"published"`` for the first ones of the published list, or an integer to draw them at random, without
            replacement, from the training cases that are on disk.
        validation: number of training cases to hold out, since no validation list was published: the last ones of
            the published list that are on disk.
        fold: which of the five folds is tested on, from 0 to 4; the published split when None.

    Returns:
        A datalist. ``source["absent"]`` counts, for each list, the published cases that are not on disk.
        ``source["fold"]`` is there if ``fold`` was given.

    Raises:
        DatalistError: if nothing like LA is in ``source``, a case is there twice, a labeled case is not there, an
            annotation is missing, or ``labeled``, ``seed``, ``validation`` or ``fold`` is out of range.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     case = Path(folder, "Training Set", "06SR5RBREL16DQ6M8LWS")
        ...     case.mkdir(parents=True)
        ...     for name in ("lgemri.nrrd", "laendo.nrrd"):
        ...         case.joinpath(name).touch()
        ...     datalist = prepare_la(folder, labeled=1)
        >>> datalist["labeled"][0]["image"]
        'Training Set/06SR5RBREL16DQ6M8LWS/lgemri.nrrd'
    """
    root = Path(source)
    split = _lists(fold, root)
    cases = _cases(root, {*split["train"], *split["test"]})
    if not cases:
        raise DatalistError(root, "holds no LA case", f"name the folder that holds CASE/{IMAGE} and CASE/{LABEL}")
    train, held_out = hold_out(split["train"], cases, validation, labeled, root)
    lists = divide(split | {"train": train, "validation": held_out}, cases, labeled, seed, root)
    about = {"name": "la", "labels": dict(LABELS), "label_values": dict(LABEL_VALUES)}
    reader = {"reader": "la"} if fold is None else {"reader": "la", "fold": fold}
    return {**about, **lists, "source": {**reader, **lists["source"]}}


def _lists(fold: int | None, root: Path) -> dict[str, list[str]]:
    if fold is None:
        return published_split("la")
    folds: Any = published_split("la_folds")["folds"]
    if fold not in range(len(folds)):
        raise DatalistError(root, f"there is no fold {fold}", f"choose one from 0 to {len(folds) - 1}")
    names: dict[str, list[str]] = folds[fold]
    return names


def _cases(root: Path, published: set[str]) -> dict[str, list[Item]]:
    cases: dict[str, list[Item]] = {}
    for file in sorted([*root.glob(f"*/{IMAGE}"), *root.glob(f"*/*/{IMAGE}")]):
        case = file.parent.name
        if case in cases:
            raise DatalistError(file, f"another folder holds case {case} too", "name the folder of one of them")
        if case in published:
            cases[case] = [_item(file.parent.relative_to(root))]
    return cases


def _item(folder: Path) -> Item:
    paths = {"image": (folder / IMAGE).as_posix(), "label": (folder / LABEL).as_posix()}
    return {**paths, "subject": folder.name, "case": folder.name}
