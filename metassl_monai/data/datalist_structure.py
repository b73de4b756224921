# SPDX-License-Identifier: Apache-2.0
"""What is wrong with the structure of a datalist, without a look at its images."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from .channels import channel_problems
from .duplicates import duplicate_problems
from .label_values import label_value_problems
from .orientation import orientation_problems
from .problems import Problem

__all__ = ["LISTS", "StrPath", "datalist_problems", "path_error"]

LISTS = ("labeled", "unlabeled", "validation", "test", "monitor")
"""The lists of a datalist; ``monitor`` holds the hidden labels of unlabeled cases and no training may read it."""

StrPath = str | os.PathLike[str]


def datalist_problems(datalist: Any, where: StrPath) -> Iterator[Problem]:
    """Yield everything that is wrong with the structure of a datalist, as `validate_datalist` describes it."""
    where = os.fspath(where)
    if not isinstance(datalist, dict):
        yield Problem(where, "is not a JSON object", "make it anew with `metassl prepare`")
        return
    if not isinstance(datalist.get("name", ""), str):
        yield Problem(where, f"`name` is {datalist['name']!r}, which is no text", "put the name into quotes")
    yield from _label_problems(datalist.get("labels"), where)
    for problems in (label_value_problems, orientation_problems, channel_problems):
        yield from problems(datalist, where)
    for key in LISTS:
        yield from _list_problems(datalist.get(key), key, where)
    yield from duplicate_problems(datalist, where)


def path_error(path: str) -> str | None:
    """Say why a path may not be in a datalist; None where it may. Both POSIX and Windows spellings count.

    Example:
        >>> path_error("images/a.nii.gz"), path_error("../a.nii.gz")
        (None, "has a '..' in it")
    """
    if PurePosixPath(path).is_absolute() or PureWindowsPath(path).anchor:
        return "is absolute"
    if "\0" in path:
        return "has a null character in it"
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        return "has a character in it that no name of a file can have"
    return "has a '..' in it" if ".." in PureWindowsPath(path).parts else None


def _label_problems(labels: Any, where: str) -> Iterator[Problem]:
    remedy = 'write them as {"0": "background", "1": "name", ...}'
    if not isinstance(labels, dict):
        yield Problem(where, "`labels` is missing or not an object", remedy)
    elif len(labels) < 2 or set(labels) != {str(value) for value in range(len(labels))}:
        yield Problem(where, f"the values in `labels` are not 0, 1, ... but {', '.join(labels)}", remedy)


def _list_problems(items: Any, key: str, where: str) -> Iterator[Problem]:
    if not isinstance(items, list):
        yield Problem(where, f"`{key}` is missing or not a list", f"add the list `{key}`; it may be empty")
        return
    if key == "labeled" and not items:
        yield Problem(where, "no case is labeled: `labeled` is empty", "move at least one case into `labeled`")
    for number, item in enumerate(items):
        yield from _item_problems(item, key, f"`{key}` item {number}", where)


def _item_problems(item: Any, key: str, name: str, where: str) -> Iterator[Problem]:
    if not isinstance(item, dict):
        yield Problem(where, f"{name} is not an object", "write it with `image`, `subject` and `case`")
        return
    needed = ("image", "subject", "case") + (("label",) if key != "unlabeled" else ())
    for field in needed:
        value = item.get(field)
        # an image may be a list of files, one a channel
        texts = value if field == "image" and isinstance(value, list) and value else [value]
        if not all(isinstance(text, str) and text for text in texts):
            yield Problem(where, f"{name} has no `{field}`", f"give it a `{field}`, as text")
    if key == "unlabeled" and "label" in item:
        yield Problem(where, f"{name} has a `label`", "drop the key; hidden labels belong in `monitor`")
    for field in ("image", "label"):
        value = item.get(field, "")
        for path in map(str, value if isinstance(value, list) else [value]):
            if reason := path_error(path):
                remedy = "write it relative to the dataset folder"
                yield Problem(where, f"the `{field}` of {name}, {path}, {reason}", remedy)
