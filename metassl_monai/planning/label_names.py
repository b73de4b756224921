# SPDX-License-Identifier: Apache-2.0
"""Names of label values: from the command line, ITK-SNAP's label file, or Slicer's color table."""

from __future__ import annotations

import re
from collections.abc import Sequence

from metassl_monai.data import DatalistError

__all__ = ["read_label_names"]


def read_label_names(entries: Sequence[str]) -> dict[int, str]:
    """Return the name of each raw label value.

    Args:
        entries: ``"1=aorta"``.

    Raises:
        DatalistError: if an entry is malformed, or a value has two names.

    Example:
        >>> read_label_names(["1=aorta", "-3 = left lung"])
        {1: 'aorta', -3: 'left lung'}
    """
    names: dict[int, str] = {}
    for entry in entries:
        found = re.fullmatch(r"\s*(-?\d+)\s*=\s*(.*\S)\s*", entry)
        if not found:
            raise DatalistError("--label", f"{entry!r} names no label value", "write it as --label 1=aorta")
        if int(found[1]) in names:
            raise DatalistError("--label", f"the value {found[1]} has two names", "give one")
        names[int(found[1])] = found[2]
    return names
