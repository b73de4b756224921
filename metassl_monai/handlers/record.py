# SPDX-License-Identifier: Apache-2.0
"""What a checkpoint or a first stage was made from, and how a run differs from it."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

__all__ = ["LENGTH", "record_differences"]

LENGTH = frozenset({"epochs", "iterations", "max_epochs", "pretrain_iterations", "ramp_iterations", "total_iters"})
"""Last names of the ids that say how long a training is: a resumed run may be longer or shorter."""

_NAMES = {"train::dataset::data": "labeled cases", "train::unlabeled_dataset::data": "unlabeled cases"}
_MOST_SHOWN = 3
_LONGEST = 60
_ABSENT = object()


def record_differences(made: Mapping[str, Any], asked: Mapping[str, Any], without: Collection[str] = ()) -> str:
    """Say how what a file was made with differs from what a run asks for.

    Args:
        made: value by config id, as stored in the file.
        asked: value by config id, of this run.
        without: last names of ids that may differ.

    Returns:
        The first differences, those of the cases and of the ids without a parent first; empty where there is none.

    Example::

        >>> record_differences({"seed": 1, "optimizer::lr": 0.1}, {"seed": 7, "optimizer::lr": 0.1})
        'seed is 7 and was 1'
    """
    ids = [
        id
        for id in {**made, **asked}
        if id.rpartition("::")[2] not in without and made.get(id, _ABSENT) != asked.get(id, _ABSENT)
    ]
    ids.sort(key=lambda id: (id not in _NAMES, id.count("::")))
    said = [_difference(id, made.get(id, _ABSENT), asked.get(id, _ABSENT)) for id in ids[:_MOST_SHOWN]]
    more = [f"{len(ids) - _MOST_SHOWN} more"] if len(ids) > _MOST_SHOWN else []
    return "; ".join([*said, *more])


def _difference(id: str, made: Any, asked: Any) -> str:
    name = _NAMES.get(id, id)
    if id not in _NAMES or not (isinstance(made, list) and isinstance(asked, list)):
        return f"{name} is {_said(asked)} and was {_said(made)}"
    added, gone = [x for x in asked if x not in made], [x for x in made if x not in asked]
    if not added and not gone:
        return f"{name}: the same in another order"
    parts = [f"{what} {_said(items)}" for what, items in (("now with", added), ("now without", gone)) if items]
    return f"{name}: {', '.join(parts)}"


def _said(value: Any) -> str:
    if value is _ABSENT:
        return "absent"
    text = ", ".join(map(str, value)) if isinstance(value, list) else json.dumps(value).strip('"')
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "..."
