# SPDX-License-Identifier: Apache-2.0
"""Reader of ACDC, the Automated Cardiac Diagnosis Challenge: cine MR, two annotated frames a patient.

Source of the data: O. Bernard et al., "Deep learning techniques for automatic MRI cardiac multi-structures segmentation
and diagnosis: is the problem solved?", IEEE TMI 37(11), 2018. Source of the split: SSL4MIS
(https://github.com/HiLab-git/SSL4MIS), which the semi-supervised papers follow: 70 training, 10 validation and 20 test
patients, of which "1, 3, 7 or 14 labeled" are the first ones of the training list.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from .problems import DatalistError
from .split import Item, divide, published_split

__all__ = ["prepare_acdc"]

LABELS = {"0": "background", "1": "right ventricle", "2": "myocardium", "3": "left ventricle"}
LAYOUT = "training/patientNNN/patientNNN_frameMM.nii.gz and patientNNN_frameMM_gt.nii.gz"
FRAME = re.compile(r"(patient\d{3}_frame\d{2})\.nii(\.gz)?")


def prepare_acdc(source: str | os.PathLike[str], labeled: int, seed: int | str = "published") -> dict[str, Any]:
    """Describe the official release of ACDC as a datalist; nothing is written.

    The layout is ``training/patientNNN/{Info.cfg, patientNNN_4d.nii.gz, patientNNN_frameMM.nii.gz,
    patientNNN_frameMM_gt.nii.gz}``, or the same without ``.gz``; ``Info.cfg`` and the 4D film are ignored, and so are
    patients outside the published split. Labels: 0 background, 1 right ventricle, 2 myocardium, 3 left ventricle.

    Args:
        source: the release's folder, or its ``training`` folder; the datalist's paths are relative to it.
        labeled: number of labeled patients, from 1 to the number of training patients; all others are unlabeled.
        seed: ``"published"`` for the first ones of the published list, or an integer to draw them at random, without
            replacement, from the training patients that are on disk.

    Returns:
        A datalist. ``source["absent"]`` counts, for each list, the published patients that are not on disk.

    Raises:
        DatalistError: if nothing like ACDC is in ``source``, a labeled patient is not there, a frame that needs an
            annotation has none, or ``labeled`` or ``seed`` is out of range.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     patient = Path(folder, "training", "patient099")
        ...     patient.mkdir(parents=True)
        ...     for name in ("patient099_frame01.nii.gz", "patient099_frame01_gt.nii.gz"):
        ...         patient.joinpath(name).touch()
        ...     datalist = prepare_acdc(folder, labeled=1)
        >>> datalist["labeled"][0]["image"]
        'training/patient099/patient099_frame01.nii.gz'
    """
    root = Path(source)
    split = published_split("acdc")
    cases = {name: _cases(root, name) for names in split.values() for name in names}
    if not any(cases.values()):
        raise DatalistError(root, "holds no ACDC patient", f"name the folder that holds {LAYOUT}")
    lists = divide(split, cases, labeled, seed, root)
    return {"name": "acdc", "labels": dict(LABELS), **lists, "source": {"reader": "acdc", **lists["source"]}}


def _cases(root: Path, patient: str) -> list[Item]:
    """Return one item for each frame of a patient, in order; none where the patient is not on disk."""
    base = Path("training") if (root / "training").is_dir() else Path()
    folder = base / patient
    if not (root / folder).is_dir():
        return []
    # a copy that was unpacked beside the original comes first, and is replaced
    names = {match[1]: match[0] for match in map(FRAME.fullmatch, sorted(os.listdir(root / folder))) if match}
    return [_item(folder, case, name.removeprefix(case), patient) for case, name in names.items()]


def _item(folder: Path, case: str, suffix: str, patient: str) -> Item:
    image, label = ((folder / f"{case}{part}{suffix}").as_posix() for part in ("", "_gt"))
    return {"image": image, "subject": patient, "case": case, "label": label}
