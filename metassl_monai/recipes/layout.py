# SPDX-License-Identifier: Apache-2.0
"""How the project writes JSON: what fits on a line stands on one line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

__all__ = ["format_config"]

WIDTH, STEP, SHORT = 120, 4, 60


def format_config(config: Any) -> str:
    """Return a config as JSON in lines of up to 120 characters.

    Where an object or list does not fit on a line, its entries have a line each. The short ones share lines in a list,
    in a component, which has a ``_target_``, and in an object that has no others.

    Example:
        >>> print(format_config({"seed": 1, "network_def": {"_target_": "UNet", "channels": [8, 16]}}))
        {
            "seed": 1,
            "network_def": {"_target_": "UNet", "channels": [8, 16]}
        }
        <BLANKLINE>
    """
    return _formatted(config, 0, WIDTH) + "\n"


def _formatted(value: Any, indent: int, used: int) -> str:
    """Format a value of which ``used`` characters of the first line are taken, of an outermost one all."""
    line = json.dumps(value)
    if not isinstance(value, dict | list) or not value or used + len(line) < WIDTH:
        return line
    inner = indent + STEP
    entries = [(name + _formatted(item, inner, inner + len(name)), _is_short(item)) for name, item in _entries(value)]
    shared = isinstance(value, list) or "_target_" in value or (indent > 0 and all(is_short for _, is_short in entries))
    lines = list(_filled(entries, WIDTH - inner)) if shared else [f"{text}," for text, _ in entries]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    body = "\n".join(" " * inner + line for line in lines).removesuffix(",")
    return f"{opening}\n{body}\n{' ' * indent}{closing}"


def _entries(value: dict[str, Any] | list[Any]) -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [(json.dumps(key) + ": ", item) for key, item in value.items()]
    return [("", item) for item in value]


def _is_short(item: Any) -> bool:
    return not isinstance(item, dict | list) or (isinstance(item, list) and len(json.dumps(item)) <= SHORT)


def _filled(entries: list[tuple[str, bool]], width: int) -> Iterator[str]:
    """Join short entries that follow each other to lines of up to ``width`` characters."""
    line = ""
    for text, is_short in entries:
        if line and not (is_short and len(line) + len(text) + 2 <= width):
            yield line
            line = ""
        line = f"{line} {text},".lstrip()
        if not is_short:
            yield line
            line = ""
    if line:
        yield line
