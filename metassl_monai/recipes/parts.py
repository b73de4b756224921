# SPDX-License-Identifier: Apache-2.0
"""What configs are put together from: JSON files of this folder, and how one is laid upon another."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["Config", "data_sets", "lay_upon", "methods", "part"]

Config = dict[str, Any]

FOLDER = Path(__file__).parent


def part(name: str) -> Config:
    """Return a part: ``common``, a dimension such as ``slices``, ``data_sets/acdc`` or ``methods/cps``."""
    content: Config = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return content


def data_sets() -> list[str]:
    """Return the names of the data sets that have a bundle."""
    return sorted(file.stem for file in (FOLDER / "data_sets").glob("*.json"))


def methods(data_set: str) -> list[str]:
    """Return the names of the methods that a data set's bundle has."""
    names = sorted(file.stem for file in (FOLDER / "methods").glob("*.json"))
    return [name for name in names if data_set in part(f"methods/{name}").get("data_sets", [data_set])]


def lay_upon(config: Config, changes: Mapping[str, Any]) -> None:
    """Change a config in place.

    As with MONAI's overlays ``a::b`` reaches into ``a``, and ``+a`` makes the list ``a`` longer; where ``config`` has
    no ``a``, both stay what they are, for a config that is an overlay itself. Objects without ``_target_`` are laid
    upon each other id by id.

    Example:
        >>> config = {"imports": ["os"], "ramp": {"_target_": "Ramp", "start": 0}}
        >>> lay_upon(config, {"+imports": ["time"], "ramp::start": 9, "seed": 1})
        >>> config
        {'imports': ['os', 'time'], 'ramp': {'_target_': 'Ramp', 'start': 9}, 'seed': 1}
    """
    for key, value in changes.items():
        first, _, rest = key.partition("::")
        if key[0] == "+" and key[1:] in config:
            config[key[1:]] = [*config[key[1:]], *value]
        elif rest and isinstance(config.get(first), dict):
            lay_upon(config[first], {rest: value})
        elif isinstance(value, dict) and "_target_" not in value and isinstance(config.get(key), dict):
            lay_upon(config[key], value)
        else:
            config[key] = copy.deepcopy(value)
