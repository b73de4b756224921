# SPDX-License-Identifier: Apache-2.0
"""Reader of BraTS 2019, the Multimodal Brain Tumor Segmentation Challenge: four MR sequences and a tumor a case.

Source of the data: B. Menze et al., "The Multimodal Brain Tumor Image Segmentation Benchmark (BRATS)", IEEE TMI 34(10),
2015. Source of the split: SSL4MIS (https://github.com/HiLab-git/SSL4MIS), which the semi-supervised papers follow: 250
training, 25 validation and 60 test cases of the 335 annotated ones; "25 or 50 labeled" are the first ones of the
training list. As they do, the reader takes the FLAIR sequence and the whole tumor.

The folder and file names and the label values were confirmed in public descriptions of the release and in scripts that
convert it; the number of high- and low-grade cases and the image geometry were not.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from .problems import DatalistError
from .split import Item, divide, published_split

__all__ = ["prepare_brats2019"]

LABELS = {"0": "background", "1": "whole tumor"}
LABEL_VALUES = {"0": 0, "1": 1, "2": 1, "4": 1}
LAYOUT = "HGG/BraTS19_*/BraTS19_*_flair.nii.gz and _seg.nii.gz, and LGG likewise"
SUFFIXES = (".nii.gz", ".nii")


def prepare_brats2019(source: str | os.PathLike[str], labeled: int, seed: int | str = "published") -> dict[str, Any]:
    """Describe the official training release of BraTS 2019 as a datalist; nothing is written.

    The layout is ``{HGG,LGG}/CASE/CASE_{flair,t1,t1ce,t2,seg}.nii.gz``, compressed or not, where a case's name begins
    with ``BraTS19_``; the sequences other than FLAIR are ignored. The raw label values 1, 2 and 4 (necrotic core, edema
    and enhancing tumor) all become 1 by the datalist's ``label_values``.

    Args:
        source: the folder that holds ``HGG`` and ``LGG``, or the folder above it; the datalist's paths are relative to
            it.
        labeled: number of labeled cases, from 1 to the number of training cases; all others are unlabeled.
        seed: ``"published"`` for the first ones of the published list, or an integer to draw them at random, without
            replacement, from the training cases that are on disk.

    Returns:
        A datalist. ``source["absent"]`` counts, for each list, the published cases that are not on disk.

    Raises:
        DatalistError: if nothing like BraTS 2019 is in ``source``, a case is there twice, a labeled case is not there,
            an annotation is missing, or ``labeled`` or ``seed`` is out of range.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     case = Path(folder, "HGG", "BraTS19_TCIA02_370_1")
        ...     case.mkdir(parents=True)
        ...     for name in ("flair", "seg"):
        ...         case.joinpath(f"BraTS19_TCIA02_370_1_{name}.nii.gz").touch()
        ...     datalist = prepare_brats2019(folder, labeled=1)
        >>> datalist["labeled"][0]["image"]
        'HGG/BraTS19_TCIA02_370_1/BraTS19_TCIA02_370_1_flair.nii.gz'
    """
    root = Path(source)
    split = published_split("brats2019")
    cases = _cases(root, {name for names in split.values() for name in names})
    if not cases:
        raise DatalistError(root, "holds no BraTS 2019 case", f"name the folder that holds {LAYOUT}")
    lists = divide(split, cases, labeled, seed, root)
    about = {"name": "brats2019", "labels": dict(LABELS), "label_values": dict(LABEL_VALUES)}
    return {**about, **lists, "source": {"reader": "brats2019", **lists["source"]}}


def _cases(root: Path, published: set[str]) -> dict[str, list[Item]]:
    cases: dict[str, list[Item]] = {}
    for folder in sorted([*root.glob("[HL]GG/BraTS19_*"), *root.glob("*/[HL]GG/BraTS19_*")]):
        case, image = folder.name, _file(folder, "flair")
        if case in cases:
            raise DatalistError(folder, f"another folder holds case {case} too", "name the folder of one of them")
        if case in published and image.is_file():
            files = {"image": image, "label": _file(folder, "seg")}
            paths = {key: file.relative_to(root).as_posix() for key, file in files.items()}
            cases[case] = [{**paths, "subject": case, "case": case}]
    return cases


def _file(folder: Path, name: str) -> Path:
    """Return a case's file as it is on disk, compressed or not; the compressed name where there is none."""
    files = [folder / f"{folder.name}_{name}{suffix}" for suffix in SUFFIXES]
    return next((file for file in files if file.is_file()), files[0])
