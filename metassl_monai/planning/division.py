# SPDX-License-Identifier: Apache-2.0
"""Who is labeled, unlabeled and for validation, by subjects."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from metassl_monai.data import DatalistError
from metassl_monai.data.datalist_structure import LISTS

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

    Cases whose layout puts them into a list stay there, but for those to learn from and to validate on where a number
    of validation subjects is given. Of the other subjects with a label, that many are drawn. Images without label of
    subjects that are labeled elsewhere would put these into two lists and are left out.

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
        DatalistError: if no subject is labeled, as many are to be held out as there are, or a subject is to learn from
            and in the layout's validation or test list.
    """
    if validation is not None:
        cases = [case._replace(key=None) if case.key in ("labeled", "validation") else case for case in cases]
    lists_of = {str(case.subject): case.key for case in cases if case.key}
    labeled = _labeled_subjects(cases, lists_of, where)
    fixed = sum(key == "labeled" for key in lists_of.values())
    if validation is None:
        validation = 0 if "validation" in lists_of.values() else validation_count(len(labeled))
    if not labeled and not fixed:
        raise DatalistError(where, "no image has a label", "annotate at least one, or correct --labels")
    possible = len(labeled) - (0 if fixed else 1)
    if not 0 <= validation <= possible:
        cause = f"cannot hold out {validation} of {len(labeled)} labeled subjects for validation"
        raise DatalistError(where, cause, f"pass --validation with a number from 0 to {possible}")
    held_out = set(random.Random(seed).sample(labeled, validation))
    lists_of |= {subject: "validation" if subject in held_out else "labeled" for subject in labeled}
    lists: dict[str, list[Case]] = {key: [] for key in LISTS}
    left_out = []
    for case in sorted(cases, key=lambda case: case.name):
        key = case.key or lists_of.get(str(case.subject), "unlabeled")
        if case.key or case.label or key == "unlabeled":
            lists[key].append(case)
        else:
            left_out.append(case.name)
    return lists, [_left_out(left_out)] if left_out else []


def _labeled_subjects(cases: Sequence[Case], lists_of: dict[str, str], where: Path) -> list[str]:
    """Return the subjects to divide: those with a label that no list of the layout has."""
    labeled = {str(case.subject) for case in cases if case.label and not case.key}
    both = sorted(subject for subject in labeled if lists_of.get(subject) in ("validation", "test"))
    if both:
        cause = f"the subject {both[0]} is to learn from, and in the list {lists_of[both[0]]!r}"
        raise DatalistError(where, cause, "take it out of one of them")
    return sorted(labeled - lists_of.keys())


def _left_out(names: Sequence[str]) -> str:
    shown = f"{', '.join(names[:3])}{' ...' if len(names) > 3 else ''}"
    images = "1 image has" if len(names) == 1 else f"{len(names)} images have"
    why = "while others of the same subject have one: left out, as no subject may be in two lists"
    return f"{images} no label {why} ({shown})"
