# SPDX-License-Identifier: Apache-2.0
"""Names of label values: from the command line, ITK-SNAP's label file, Slicer's color table or ``dataset.json``."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metassl_monai.data import DatalistError

__all__ = ["json_label_names", "read_label_names"]

GIVEN = re.compile(r"\s*(-?\d+)\s*=\s*(.*\S)\s*")
ITK_SNAP = re.compile(r'\s*(-?\d+)(?:\s+[\d.]+){6}\s+"(.*)"\s*')  # value, color, opacity, two flags, name
SLICER = re.compile(r"\s*(-?\d+)\s+(\S.*?)(?:\s+[\d.]+){4}\s*")  # value, name, color, opacity


def read_label_names(entries: Sequence[str]) -> dict[int, str]:
    """Return the names of raw label values; those given one by one replace those of files.

    Args:
        entries: ``"1=aorta"``; or the file of ITK-SNAP's label descriptions, or of a color table of 3D Slicer
            (``.ctbl``, or ``.csv`` since version 5).

    Raises:
        DatalistError: if an entry is malformed, a file is missing or is none of these, or a value has two names.

    Example:
        >>> read_label_names(["1=aorta", "-3 = left lung"])
        {1: 'aorta', -3: 'left lung'}
    """
    given: dict[int, str] = {}
    listed: dict[int, str] = {}
    for entry in entries:
        found = GIVEN.fullmatch(entry)
        if not found:
            listed |= _file_names(entry)
        elif int(found[1]) in given:
            raise DatalistError("--label", f"the value {found[1]} has two names", "give one")
        else:
            given[int(found[1])] = found[2]
    return listed | given


def json_label_names(labels: Any, where: Path) -> tuple[dict[int, str], int | None]:
    """Return names and the value of ``ignore`` from the ``labels`` of a ``dataset.json``, of nnU-Net or the Decathlon.

    Args:
        labels: ``{"background": 0, "aorta": 1}`` or ``{"0": "background", "1": "aorta"}``.
        where: the file, for messages.

    Raises:
        DatalistError: if it is neither, or a name stands for several values.

    Example:
        >>> json_label_names({"background": 0, "aorta": 1, "ignore": 2}, Path("dataset.json"))
        ({0: 'background', 1: 'aorta'}, 2)
    """
    if not isinstance(labels, Mapping) or not labels:
        raise DatalistError(where, "has no `labels`", 'write them as {"background": 0, "aorta": 1}')
    regions = [name for name, value in labels.items() if isinstance(value, list)]
    if regions:
        remedy = "name single values, which must not overlap; their unions can be made of predictions afterwards"
        raise DatalistError(where, f"its label {regions[0]!r} is a region of several values", remedy)
    swapped = all(isinstance(value, str) for value in labels.values())
    try:
        pairs = [(int(key), str(value)) if swapped else (int(value), str(key)) for key, value in labels.items()]
    except (TypeError, ValueError):
        cause = "its `labels` do not lead from names to whole numbers"
        raise DatalistError(where, cause, 'write them as {"background": 0, "aorta": 1}') from None
    names = dict(pairs)
    ignore = next((value for value, name in names.items() if name.lower() == "ignore"), None)
    return {value: name for value, name in names.items() if value != ignore}, ignore


def _file_names(file: str) -> dict[int, str]:
    path = Path(file)
    if not path.is_file():
        raise DatalistError("--label", f"{file!r} is neither VALUE=NAME nor a file", "write it as --label 1=aorta")
    text = path.read_text(encoding="utf-8", errors="replace")
    if path.suffix.lower() == ".csv":
        rows = csv.DictReader(text.splitlines())
        names = {row["LabelValue"]: row["Name"] for row in rows if row.get("LabelValue") and row.get("Name")}
    else:
        lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
        matches = [ITK_SNAP.fullmatch(line) or SLICER.fullmatch(line) for line in lines]
        names = {found[1]: found[2].replace("_", " ") for found in matches if found}
    if not names:
        remedy = "export the label descriptions of ITK-SNAP or a color table of 3D Slicer"
        raise DatalistError(path, "names no label value", remedy)
    # both programs call the value 0 by names of their own
    return {int(value): "background" if int(value) == 0 else name for value, name in names.items()}
