# SPDX-License-Identifier: Apache-2.0
"""What is wrong with the content of an experiment file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from metassl_monai.data import READERS
from metassl_monai.losses.presets import PRESETS

__all__ = ["mistakes", "row_name"]

_REQUIRED = {
    "title": str,
    "about": str,
    "bundle": str,
    "reader": str,
    "labeled": [int],
    "subsets": [int, str],
    "seeds": [int],
    "split": str,
    "checkpoint": str,
    "rows": [dict],
}
_SECTION = {"overlays": [str], "overrides": dict}
_TOP = {**_REQUIRED, **_SECTION, "prepare": dict, "methods": dict, "baselines": [str]}
_METHOD = {**_SECTION, "inference": [str]}
_ROW = {**_SECTION, "method": str, "preset": str, "name": str}
_SPOKEN = {str: "a text", int: "a number", dict: "an object"}


def mistakes(content: Any) -> list[str]:
    """Return a message for each thing that is wrong; those about values only where all types are right."""
    return list(_wrong_types(content)) or list(_wrong_values(content))


def row_name(row: Mapping[str, Any]) -> str:
    """Return the name of a row: its own, or method and preset."""
    name: str = row.get("name", f"{row['method']}-{row['preset']}")
    return name


def _wrong_types(content: Any) -> Iterator[str]:
    yield from _mistyped(content, _TOP, _REQUIRED, "the file")
    if not isinstance(content, dict):
        return
    for name, section in _items(content.get("methods")):
        yield from _mistyped(section, _METHOD, (), f"the method {name!r}")
    for number, row in enumerate(content["rows"] if isinstance(content.get("rows"), list) else (), start=1):
        yield from _mistyped(row, _ROW, ("method", "preset"), f"row {number}")


def _items(section: Any) -> Iterator[tuple[str, Any]]:
    yield from section.items() if isinstance(section, dict) else ()


def _mistyped(section: Any, types: Mapping[str, Any], required: Any, where: str) -> Iterator[str]:
    if not isinstance(section, dict):
        yield f"{where} must be an object, not {section!r}."
        return
    yield from (f"{where} lacks {key!r}." for key in required if key not in section)
    for key, value in section.items():
        if key not in types:
            yield f"{where} has an unknown {key!r}: choose among {', '.join(types)}."
        elif not _fits(value, types[key]):
            yield f"{key!r} of {where} must be {_spoken(types[key])}, not {value!r}."


def _fits(value: Any, kind: Any) -> bool:
    if isinstance(kind, list):
        return isinstance(value, list) and value != [] and all(_is_one_of(item, kind) for item in value)
    return _is_one_of(value, [kind])


def _is_one_of(value: Any, kinds: list[type]) -> bool:
    return isinstance(value, tuple(kinds)) and not isinstance(value, bool)


def _spoken(kind: Any) -> str:
    if isinstance(kind, list):
        return f"a list, not empty, each item {' or '.join(_SPOKEN[item] for item in kind)}"
    return _SPOKEN[kind]


def _wrong_values(content: Mapping[str, Any]) -> Iterator[str]:
    for key, known in (("reader", READERS), ("split", ("validation", "test")), ("checkpoint", ("best", "last"))):
        yield from _unknown(key, content[key], known)
    for subset in content["subsets"]:
        if str(subset) != "published" and not str(subset).isdigit():
            yield f"subset {subset!r} is none: give 'published' or a number."
    names = [row_name(row) for row in content["rows"]]
    for row in content["rows"]:
        yield from _unknown("preset", row["preset"], ("plain", *PRESETS))
    for baseline in content.get("baselines", ()):
        yield from _unknown("baseline", baseline, ("plain", *PRESETS, *names))
    yield from (f"two rows are called {name!r}: give one a 'name'." for name in set(names) if names.count(name) > 1)
    yield from (f"row name {name!r} names files: use letters, digits and _.-" for name in names if not _plain(name))
    methods = {row["method"] for row in content["rows"]}
    yield from (
        f"no row has the method {name!r} of 'methods'." for name in content.get("methods", ()) if name not in methods
    )


def _unknown(key: str, value: str, known: Any) -> Iterator[str]:
    if value not in known:
        yield f"{key} {value!r} is unknown: choose one of {', '.join(known)}."


def _plain(name: str) -> bool:
    return re.fullmatch(r"\w[\w.-]*", name) is not None
