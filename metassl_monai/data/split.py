# SPDX-License-Identifier: Apache-2.0
"""Who is labeled: what the readers share to divide the subjects of a data set into the lists of a datalist."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from .problems import DatalistError

__all__ = ["Item", "divide", "hold_out", "published_split"]

Item = dict[str, str]


def published_split(name: str) -> dict[str, list[str]]:
    """Return the subjects of each published list of a data set, in published order.

    Example:
        >>> {key: len(subjects) for key, subjects in published_split("la").items()}
        {'train': 80, 'test': 20}
    """
    file = files(__package__) / "splits" / f"{name}.json"
    split = json.loads(file.read_text(encoding="utf-8"))
    return {key: subjects for key, subjects in split.items() if key != "source"}


def hold_out(
    train: Sequence[str], cases: Mapping[str, Sequence[Item]], number: int, labeled: int, root: Path
) -> tuple[list[str], list[str]]:
    """Divide training subjects where no validation list was published.

    Args:
        train: the training subjects in published order.
        cases: the items of each subject that is on disk.
        number: how many to hold out: the last ones of ``train`` that are on disk.
        labeled: how many subjects the other part must be able to label.
        root: the folder that a message is to name.

    Returns:
        The training subjects that are left, and those held out, both in published order.

    Raises:
        DatalistError: if ``number`` is negative or leaves too few subjects.

    Example:
        >>> hold_out(["a", "b", "c"], {"a": [{}], "b": [{}]}, number=1, labeled=1, root=Path())
        (['a', 'c'], ['b'])
    """
    present = [name for name in train if cases.get(name)]
    if not 0 <= number <= max(len(present) - labeled, 0):
        cause = f"cannot hold out {number} of {len(present)} training cases for validation and label {labeled}"
        raise DatalistError(root, cause, "choose another number of them, or add cases")
    held_out = present[len(present) - number :]
    return [name for name in train if name not in held_out], held_out


def divide(
    split: Mapping[str, Sequence[str]], cases: Mapping[str, Sequence[Item]], labeled: int, seed: int | str, root: Path
) -> dict[str, Any]:
    """Make the lists of a datalist from a split by subjects.

    Args:
        split: the subjects for ``train``, ``validation`` and ``test``.
        cases: the items of each subject that is on disk, with the path at which its ``label`` is expected.
        labeled: number of labeled training subjects; all others are unlabeled.
        seed: ``"published"`` for the first ones of the training list, or an integer to draw them at random, without
            replacement, from the training subjects that are on disk.
        root: the folder that the items' paths are relative to.

    Returns:
        The five lists, and in ``source`` the seed, the number of items in each list and, as ``absent``, the number of
        its subjects that are not on disk.

    Raises:
        DatalistError: if ``labeled`` or ``seed`` is out of range, a labeled subject is not on disk, or an annotation
            of a labeled, validation or test item is missing.

    Example:
        >>> item = {"image": "b.nrrd", "label": "b_label.nrrd", "subject": "b", "case": "b"}
        >>> lists = divide({"train": ["a", "b"], "validation": [], "test": ["c"]}, {"b": [item]}, 1, 0, Path())
        Traceback (most recent call last):
            ...
        metassl_monai.data.problems.DatalistError: b_label.nrrd: the annotation of b is missing; add this file
    """
    present = [name for name in split["train"] if cases.get(name)]
    chosen = _choose(split["train"] if seed == "published" else present, labeled, seed, root)
    _require_subjects(chosen, present, root)
    subjects = {
        "labeled": chosen,
        "unlabeled": [name for name in split["train"] if name not in chosen],
        "validation": split["validation"],
        "test": split["test"],
    }
    lists = {key: [item for name in names for item in cases.get(name, ())] for key, names in subjects.items()}
    _require_annotations([item for key in ("labeled", "validation", "test") for item in lists[key]], root)
    lists["monitor"] = [item for item in lists["unlabeled"] if (root / item["label"]).is_file()]
    lists["unlabeled"] = [{key: item[key] for key in item if key != "label"} for item in lists["unlabeled"]]
    counts = {key: len(items) for key, items in lists.items()}
    absent = {key: sum(not cases.get(name) for name in names) for key, names in subjects.items()}
    return {**lists, "source": {"seed": seed, "counts": counts, "absent": absent}}


def _choose(subjects: Sequence[str], labeled: int, seed: int | str, root: Path) -> list[str]:
    if not 1 <= labeled <= len(subjects):
        cause = f"cannot label {labeled} of {len(subjects)} training subjects"
        raise DatalistError(root, cause, "choose another number of them")
    if seed == "published":
        return list(subjects[:labeled])
    if not isinstance(seed, int):
        raise DatalistError(root, f"the seed {seed!r} is not an integer", "give an integer or 'published'")
    return random.Random(seed).sample(subjects, labeled)


def _require_subjects(chosen: Sequence[str], present: Sequence[str], root: Path) -> None:
    absent = [name for name in chosen if name not in present]
    if absent:
        remedy = "add them to the folder or draw among those on disk with an integer seed"
        raise DatalistError(root, f"lacks the labeled subjects {', '.join(absent)}", remedy)


def _require_annotations(items: Sequence[Item], root: Path) -> None:
    for item in items:
        if not (root / item["label"]).is_file():
            cause = f"the annotation of {item['case']} is missing"
            raise DatalistError(root / item["label"], cause, "add this file")
