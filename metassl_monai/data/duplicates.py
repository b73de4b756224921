# SPDX-License-Identifier: Apache-2.0
"""What a datalist names twice: a subject or file in two lists, a file or case in two items, an image as a label."""

from __future__ import annotations

import posixpath
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from .problems import Problem

__all__ = ["duplicate_problems", "one_spelling"]

KEYS = ("labeled", "unlabeled", "validation", "test", "monitor")
REMEDIES = {
    "subject": "keep each subject in one list only",
    "image": "keep one item of each image",
    "label": "give each image a label of its own",
    "case": "give each item a `case` of its own",
}
Entry = tuple[str, int]
Values = list[tuple[Entry, str]]


def duplicate_problems(datalist: Mapping[str, Any], where: str) -> Iterator[Problem]:
    """Yield what a datalist names twice; malformed lists and items are passed over.

    ``monitor`` repeats subjects, images and cases of ``unlabeled``, and must not have any others.

    Example:
        >>> item = {"image": "a.nii.gz", "label": "b.nii.gz", "subject": "a", "case": "a"}
        >>> [problem.cause for problem in duplicate_problems({"labeled": [item, item]}, "datalist.json")]
        ['`labeled` has two items with the image a.nii.gz']
    """
    values = {field: _values(datalist, field) for field in REMEDIES}
    strangers = list(_monitor_problems(values, where))
    yield from strangers
    if strangers:  # whose labels need no message of their own
        values["label"] = [(entry, label) for entry, label in values["label"] if entry[0] != "monitor"]
    named: list[set[Entry]] = []
    for field, remedy in REMEDIES.items():
        found: dict[tuple[str, ...], list[str]] = defaultdict(list)
        for value, entries in _groups(values[field], field):
            lists = _lists(entries)
            # A whole item that is there twice is one mistake, though each of its fields is there twice.
            if not any(entries <= other and lists == _lists(other) for other in named):
                named.append(entries)
                found[lists].append(value)
        yield from (Problem(where, _cause(lists, field, shared), remedy) for lists, shared in found.items())
    both = {image for _, image in values["image"]} & {label for _, label in values["label"]}
    if both:
        yield Problem(
            where, f"{_enumerate(both)} is named as an image and as a label", "name each image and its label apart"
        )


def one_spelling(path: str) -> str:
    """Return a relative path as it is compared: without ``./``, and with slashes for the backslashes of Windows.

    Example:
        >>> one_spelling("images/./a.nii.gz")
        'images/a.nii.gz'
    """
    return posixpath.normpath(path.replace("\\", "/"))


def _values(datalist: Mapping[str, Any], field: str) -> Values:
    """Return what items name in a field, an image of several files once a file."""
    lists = {key: datalist.get(key) for key in KEYS}
    items = {(key, i): item for key, found in lists.items() if isinstance(found, list) for i, item in enumerate(found)}
    named = [(entry, item.get(field)) for entry, item in items.items() if isinstance(item, dict)]
    several = [(entry, value if isinstance(value, list) else [value]) for entry, value in named]
    texts = [(entry, text) for entry, values in several for text in values if isinstance(text, str) and text]
    return [(entry, one_spelling(text)) for entry, text in texts] if field in ("image", "label") else texts


def _groups(values: Values, field: str) -> Iterator[tuple[str, set[Entry]]]:
    """Yield each value that is there more often than it may be, with its items."""
    groups: dict[tuple[str, bool], set[Entry]] = defaultdict(set)
    for entry, value in values:
        groups[value, field != "label" and entry[0] == "monitor"].add(entry)
    for (value, _), entries in groups.items():
        # A subject may have several images, all in one list.
        if len(_lists(entries) if field == "subject" else entries) > 1:
            yield value, entries


def _lists(entries: Iterable[Entry]) -> tuple[str, ...]:
    keys = {key for key, _ in entries}
    return tuple(key for key in KEYS if key in keys)


def _cause(lists: tuple[str, ...], field: str, values: Collection[str]) -> str:
    if len(lists) > 1:
        return f"{' and '.join(f'`{key}`' for key in lists)} share {field} {_enumerate(values)}"
    return f"`{lists[0]}` has two items with the {field} {_enumerate(values)}"


def _monitor_problems(values: Mapping[str, Values], where: str) -> Iterator[Problem]:
    for field in ("subject", "image"):
        monitor, unlabeled = (
            {value for (key, _), value in values[field] if key == name} for name in ("monitor", "unlabeled")
        )
        if monitor - unlabeled:
            cause = f"`monitor` has {field} {_enumerate(monitor - unlabeled)}, which `unlabeled` has not"
            yield Problem(where, cause, "keep only the hidden labels of unlabeled cases in `monitor`")
            break


def _enumerate(names: Collection[str]) -> str:
    first = ", ".join(sorted(names)[:5])
    return first if len(names) <= 5 else f"{first} and {len(names) - 5} more"
