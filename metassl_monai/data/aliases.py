# SPDX-License-Identifier: Apache-2.0
"""One file under two names: links, which the paths in a datalist do not show."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from .datalist import join_inside
from .datalist_structure import LISTS, path_error
from .duplicates import one_spelling
from .problems import DatalistError, Problem

__all__ = ["alias_problems"]

REMEDY = "keep each image and each label in one item only"


class Named(NamedTuple):
    """A file as a datalist names it."""

    path: str  # relative
    key: str
    number: int
    field: str
    file: str


def alias_problems(datalist: Mapping[str, Any], dataset_dir: str | os.PathLike[str]) -> Iterator[Problem]:
    """Yield the files that a datalist names twice under different paths, in any of its lists.

    Two paths lead to one file by symbolic links, hard links or, on some systems, another spelling. Files that are
    missing are passed over.

    Args:
        datalist: what the JSON file holds.
        dataset_dir: the folder that its paths are relative to.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Path(folder, "a.nii").touch()
        ...     Path(folder, "b.nii").symlink_to("a.nii")
        ...     lists = {"labeled": [{"image": "a.nii"}], "test": [{"image": "b.nii"}]}
        ...     [problem.cause for problem in alias_problems(lists, folder)]
        ['the image in `test` is the same file as a.nii in `labeled`']
    """
    told: set[frozenset[tuple[str, int]]] = set()
    for first, *others in _same_files(_named(datalist, dataset_dir)):
        for other in others:
            # A linked case is one mistake, though its label is a link too.
            items = frozenset({(first.key, first.number), (other.key, other.number)})
            if items not in told:
                cause = f"the {other.field} in `{other.key}` is the same file as {first.path} in `{first.key}`"
                yield Problem(other.file, cause, REMEDY)
            told.add(items)


def _named(datalist: Mapping[str, Any], root: str | os.PathLike[str]) -> Iterator[Named]:
    """Yield every path once, images first; what the structure of a datalist forbids is reported elsewhere."""
    images, labels = (_first_items(datalist, field) for field in ("image", "label"))
    # A label that is also named as an image is reported elsewhere.
    fields = {"image": {path: item for path, item in images.items() if path not in labels}, "label": labels}
    for field, items in fields.items():
        for path, (key, number) in items.items():
            try:
                yield Named(path, key, number, field, join_inside(root, path))
            except DatalistError:
                continue


def _first_items(datalist: Mapping[str, Any], field: str) -> dict[str, tuple[str, int]]:
    """Return the first list and item that name each path, in the order of the lists."""
    found: dict[str, tuple[str, int]] = {}
    for key in LISTS:
        items = datalist.get(key)
        for number, item in enumerate(items if isinstance(items, list) else ()):
            value = item.get(field) if isinstance(item, dict) else None
            for path in value if isinstance(value, list) else [value]:
                if isinstance(path, str) and path and path_error(path) is None:
                    found.setdefault(one_spelling(path), (key, number))
    return found


def _same_files(named: Iterator[Named]) -> list[list[Named]]:
    """Return the groups of two or more paths that lead to one file, in their order."""
    groups = defaultdict(list)
    for name in named:
        try:
            status = os.stat(name.file)
        except OSError:
            continue
        groups[status.st_dev, status.st_ino].append(name)
    return [group for group in groups.values() if len(group) > 1]
