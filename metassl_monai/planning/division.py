# SPDX-License-Identifier: Apache-2.0
"""Who is labeled, unlabeled and for validation, by subjects."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from metassl_monai.data import DatalistError

from .found import Case

__all__ = ["divide_cases", "validation_count"]


def validation_count(subjects: int) -> int:
    """Return how many labeled subjects are held out for validation unless a number is given: a fifth, rounded down.

    With four to nine it is one. With fewer than four it is none, since each of them teaches more than it can judge; the
    last network is kept then.

    Example:
        >>> [validation_count(subjects) for subjects in (1, 3, 4, 9, 10, 80)]
        [0, 0, 1, 1, 2, 16]
    """
    return max(1, subjects // 5) if subjects >= 4 else 0


def divide_cases(
    cases: Sequence[Case], validation: int | None, seed: int, where: Path
) -> tuple[dict[str, list[Case]], list[str]]:
    """Put cases into the lists of a datalist, so that no two lists share a subject.

    Cases whose layout puts them into a list stay there. Of the other subjects with a label, ``validation`` are drawn.
    Images without label of subjects that are labeled elsewhere would put these into two lists and are left out.

    Args:
        cases: cases with their subjects.
        validation: number of labeled subjects to hold out; `validation_count` of them, or none where the layout has a
            validation list, if None.
        seed: of the draw.
        where: the folder that a message is to name.

    Returns:
        The cases of ``labeled``, ``unlabeled``, ``validation``, ``test`` and ``monitor``, in the order of their names,
        and remarks.

    Raises:
        DatalistError: if no subject is labeled, or as many are to be held out as there are.
    """
    lists: dict[str, list[Case]] = {key: [] for key in ("labeled", "unlabeled", "validation", "test", "monitor")}
    settled = {str(case.subject): case.key for case in cases if case.key}
    labeled = sorted({str(case.subject) for case in cases if case.label and not case.key} - settled.keys())
    if validation is None:
        validation = 0 if "validation" in settled.values() else validation_count(len(labeled))
    possible = len(labeled) - (0 if "labeled" in settled.values() else 1)
    if possible < 0:
        raise DatalistError(where, "no image has a label", "annotate at least one, or correct --labels")
    if not 0 <= validation <= possible:
        cause = f"cannot hold out {validation} of {len(labeled)} labeled subjects for validation"
        raise DatalistError(where, cause, f"pass --validation with a number from 0 to {possible}")
    held_out = set(random.Random(seed).sample(labeled, validation))
    settled |= {subject: "validation" if subject in held_out else "labeled" for subject in labeled}
    left_out = []
    for case in sorted(cases):
        key = case.key or settled.get(str(case.subject), "unlabeled")
        if key == "unlabeled" or case.label:
            lists[key].append(case)
        else:
            left_out.append(case.name)
    remarks = [f"{', '.join(left_out[:3])}{' ...' if len(left_out) > 3 else ''}: {_left_out(left_out)}"]
    return lists, remarks if left_out else []


def _left_out(names: list[str]) -> str:
    images = "1 image has" if len(names) == 1 else f"{len(names)} images have"
    return f"{images} no label while others of the same subject have one: left out, as no subject may be in two lists"
