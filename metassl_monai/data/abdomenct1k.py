# SPDX-License-Identifier: Apache-2.0
"""Reader of AbdomenCT-1K: abdominal CT with the liver, kidneys, spleen and pancreas annotated.

Source of the data: J. Ma et al., "AbdomenCT-1K: Is abdominal organ segmentation a solved problem?", IEEE TPAMI 44(10),
2022 (https://github.com/JunMa11/AbdomenCT-1K). No split was published that the semi-supervised papers follow: ALHVR
trains on 30 cases and tests on 11, but names none of them. So the split is drawn by a seed, and scores on it are not
comparable with that paper's.

File names, the part folders ``AbdomenCT-1K-ImagePart1`` to ``3``, the folder ``Mask`` and the label values were
confirmed in public scripts that convert the release; how many images come without a mask was not. Parts of the
collection were released elsewhere before (LiTS, KiTS, the Medical Segmentation Decathlon, Pancreas-CT).
"""

from __future__ import annotations

import os
import random
import re
from itertools import islice
from pathlib import Path
from typing import Any

from .problems import DatalistError
from .split import Item, divide

__all__ = ["prepare_abdomenct1k"]

LABELS = {"0": "background", "1": "liver", "2": "kidney", "3": "spleen", "4": "pancreas"}
FILE = re.compile(r"(Case_\d{5})(_0000)?\.nii\.gz")


def prepare_abdomenct1k(
    source: str | os.PathLike[str],
    labeled: int,
    seed: int | str = "published",
    validation: int = 0,
    train: int = 30,
    test: int = 11,
) -> dict[str, Any]:
    """Describe the official release of AbdomenCT-1K as a datalist; nothing is written.

    Images are ``Case_NNNNN_0000.nii.gz`` and masks ``Case_NNNNN.nii.gz``, in any folders. Images without a mask are
    left out. Labels: 0 background, 1 liver, 2 kidney, 3 spleen, 4 pancreas.

    Args:
        source: the folder of the release; the datalist's paths are relative to it.
        labeled: number of labeled cases, from 1 to ``train``; the other training cases are unlabeled.
        seed: an integer, by which all lists are drawn from the annotated cases that are on disk.
        validation: number of validation cases.
        train: number of training cases, ALHVR's by default.
        test: number of test cases, ALHVR's by default.

    Returns:
        A datalist. ``source["without_mask"]`` counts the images that have none.

    Raises:
        DatalistError: if ``seed`` is not an integer, nothing like AbdomenCT-1K is in ``source``, a file is there twice,
            or there are not as many cases as asked for.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("Case_00001", "Case_00002"):
        ...         Path(folder, f"{name}_0000.nii.gz").touch()
        ...         Path(folder, f"{name}.nii.gz").touch()
        ...     datalist = prepare_abdomenct1k(folder, labeled=1, seed=0, train=1, test=1)
        >>> datalist["source"]["counts"]
        {'labeled': 1, 'unlabeled': 0, 'validation': 0, 'test': 1, 'monitor': 0}
    """
    root = Path(source)
    if not isinstance(seed, int):
        raise DatalistError(root, "no split of AbdomenCT-1K was published", "draw one: give a number as seed")
    files = _files(root)
    cases = {case: [_item(root, case, found)] for case, found in files.items() if len(found) == 2}
    if not cases:
        remedy = "name the folder that holds Case_NNNNN_0000.nii.gz and Case_NNNNN.nii.gz"
        raise DatalistError(root, "holds no annotated case of AbdomenCT-1K", remedy)
    split = _draw(sorted(cases), {"test": test, "validation": validation, "train": train}, seed, root)
    # The training cases are in drawn order, so that fewer labeled ones are always among more.
    lists = divide(split, cases, labeled, "published", root)
    about = {"reader": "abdomenct1k", **lists["source"], "seed": seed, "without_mask": len(files) - len(cases)}
    return {"name": "abdomenct1k", "labels": dict(LABELS), **lists, "source": about}


def _files(root: Path) -> dict[str, dict[str, Path]]:
    """Return image and label of each case that has an image."""
    cases: dict[str, dict[str, Path]] = {}
    for file in sorted(root.rglob("Case_*.nii.gz")):
        match = FILE.fullmatch(file.name)
        if match is None:
            continue
        found = cases.setdefault(match[1], {})
        key = "image" if match[2] else "label"
        if key in found:
            raise DatalistError(file, f"another folder holds {file.name} too", "name the folder of one of them")
        found[key] = file
    return {case: found for case, found in cases.items() if "image" in found}


def _item(root: Path, case: str, files: dict[str, Path]) -> Item:
    paths = {key: files[key].relative_to(root).as_posix() for key in ("image", "label")}
    return {**paths, "subject": case, "case": case}


def _draw(cases: list[str], numbers: dict[str, int], seed: int, root: Path) -> dict[str, list[str]]:
    total = sum(numbers.values())
    if min(numbers.values()) < 0 or total > len(cases):
        asked = ", ".join(f"{number} for {key}" for key, number in numbers.items())
        raise DatalistError(root, f"cannot draw {asked} from {len(cases)} annotated cases", "ask for other numbers")
    drawn = iter(random.Random(seed).sample(cases, total))
    return {key: [*islice(drawn, number)] for key, number in numbers.items()}
