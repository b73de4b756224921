# SPDX-License-Identifier: Apache-2.0
"""Reader of DigestPath 2019, tissue segmentation: tumor in H&E-stained sections of the colon, one mask an image.

Source of the data: Q. Da et al., "DigestPath: A benchmark dataset with challenge review for the pathological detection
and segmentation of digestive-system", Medical Image Analysis 80, 102485, 2022 (https://digestpath2019.grand-challenge.org).
The release asks for a signed agreement, so that its layout was read in public code that uses it:

* Folders ``tissue-train-pos-v1`` and ``tissue-train-neg``, with ``NAME.jpg`` and ``NAME_mask.jpg`` side by side in the
  first and no masks in the second: https://github.com/bupt-ai-cz/CAC-UNet-DigestPath2019.
* Names such as ``18-02791B_2019-05-07 22_25_06-lv1-14165-17366-6446-4855``, which seem to be an accession number with
  the slide's letter or number, the time of the scan, and a box (x, y, width, height) in the slide; some have no
  accession number: the lists in https://github.com/bhfs9999/colonoscopy_tissue_screen_and_segmentation.

Not confirmed: that masks have one channel (three equal ones are read too), and what the numbers in the names mean.

MetaSSL (arXiv 2509.01144) takes 130 malignant slides, divided 100, 10 and 20, and tells neither which nor how they were
chosen: the public lists show several images of nearly every slide, and fewer slides than that.
"""

from __future__ import annotations

import os
import random
import re
from pathlib import Path
from typing import Any

from .problems import DatalistError
from .split import Item, divide

__all__ = ["prepare_digestpath"]

LABELS = {"0": "background", "1": "tumor"}
LABEL_THRESHOLD = 128
POSITIVE = "tissue-train-pos*"
MASK = "_mask.jpg"
BOX = re.compile(r"-lv\d+(-\d+){4}$")
ACCESSION = re.compile(r"D\d{9}|F?\d{4}[-_]\d{5}|\d{2}[-_]\d{5}|\d{7}")


def prepare_digestpath(
    source: str | os.PathLike[str], labeled: int, seed: int | str = 1337, validation: int = 10, test: int = 20
) -> dict[str, Any]:
    """Describe the malignant images of the official release as a datalist; nothing is written.

    The layout is ``tissue-train-pos-v1/NAME.jpg`` and ``NAME_mask.jpg``. Masks are JPEG as well, so that their values
    spread around 0 and 255: the datalist's ``label_threshold`` makes those of 128 and above tumor. The benign images of
    ``tissue-train-neg`` have no masks and are ignored, as in MetaSSL.

    All images of a slide, and all slides whose names begin with the same accession number, are one subject. Subjects
    are drawn for testing first, then for validation; the same ones whatever ``labeled`` is, and 5 labeled subjects are
    the first of 10. The paper's "5 WSIs" and "10 WSIs" are 5 % and 10 % of its *patches* (481 and 962 of 9,627), which
    may have been drawn as patches; here all patches of a subject are labeled or none.

    Args:
        source: the folder of the images, or a folder above it; the datalist's paths are relative to it.
        labeled: number of labeled subjects, from 1 to the number of training subjects; all others are unlabeled.
        seed: an integer, from which the lists are drawn: none was published.
        validation: number of subjects for validation.
        test: number of subjects for testing.

    Returns:
        A datalist.

    Raises:
        DatalistError: if no such images are in ``source``, two have one name, a mask is missing, ``seed`` is
            ``"published"``, or there are too few subjects.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     images = Path(folder, "tissue-train-pos-v1")
        ...     images.mkdir()
        ...     for name in ("18-02791B_2019-05-07 22_25_06-lv1-1-2-3-4", "D201709874_2019-05-21 12_42_42-lv1-5-6-7-8"):
        ...         images.joinpath(f"{name}.jpg").touch()
        ...         images.joinpath(f"{name}_mask.jpg").touch()
        ...     datalist = prepare_digestpath(folder, labeled=1, seed=0, validation=0, test=1)
        >>> [datalist[key][0]["subject"] for key in ("labeled", "test")]
        ['18-02791', 'D201709874']
    """
    root = Path(source)
    if not isinstance(seed, int):
        cause = "no list was published" if seed == "published" else f"the seed {seed!r} is not an integer"
        raise DatalistError(root, cause, "give a number as seed, from which the lists are drawn")
    cases = _cases(root)
    if not cases:
        raise DatalistError(root, "holds no DigestPath image", f"name the folder that holds {POSITIVE}/NAME.jpg")
    lists = divide(_draw(sorted(cases), labeled, seed, validation, test, root), cases, labeled, "published", root)
    about = {"name": "digestpath", "labels": dict(LABELS), "label_threshold": LABEL_THRESHOLD}
    return {**about, **lists, "source": {**lists["source"], "reader": "digestpath", "seed": seed}}


def _draw(subjects: list[str], labeled: int, seed: int, validation: int, test: int, root: Path) -> dict[str, list[str]]:
    if min(validation, test) < 0 or validation + test + labeled > len(subjects):
        cause = f"cannot take {test} for testing, {validation} for validation and label {labeled} of {len(subjects)}"
        raise DatalistError(root, f"{cause} subjects", "choose other numbers of them")
    drawn = random.Random(seed).sample(subjects, len(subjects))
    held_out = test + validation
    return {"test": drawn[:test], "validation": drawn[test:held_out], "train": drawn[held_out:]}


def _cases(root: Path) -> dict[str, list[Item]]:
    """Return the items of each subject, in the order of their names."""
    files = [file for pattern in ("*.jpg", f"{POSITIVE}/*.jpg", f"*/{POSITIVE}/*.jpg") for file in root.glob(pattern)]
    names: set[str] = set()
    cases: dict[str, list[Item]] = {}
    for file in sorted(file for file in files if not file.name.endswith(MASK)):
        if file.stem in names:
            raise DatalistError(file, "another folder holds this image too", "name the folder of one of them")
        names.add(file.stem)
        item = _item(file.relative_to(root))
        cases.setdefault(item["subject"], []).append(item)
    return cases


def _item(image: Path) -> Item:
    label = image.with_name(f"{image.stem}{MASK}")
    return {"image": image.as_posix(), "label": label.as_posix(), "subject": _subject(image.stem), "case": image.stem}


def _subject(name: str) -> str:
    """Return the accession number of an image, or its slide where there is none."""
    accession = ACCESSION.match(name)
    return accession.group() if accession else BOX.sub("", name)
