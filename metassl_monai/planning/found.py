# SPDX-License-Identifier: Apache-2.0
"""What the reader of a layout hands over: cases, and what the layout says about them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["Case", "Found"]


class Case(NamedTuple):
    """One image, the files of its channels, with its annotation where it has one."""

    name: str  # unique: the path in its folder, with slashes and without the suffix of its format
    images: tuple[Path, ...]  # one file, or one a channel
    label: Path | None = None
    subject: str | None = None  # where the layout names it
    key: str | None = None  # the list of the datalist that the layout puts it into


@dataclass
class Found:
    """All that a layout says."""

    layout: str
    cases: list[Case]
    channels: tuple[str, ...] = ()  # names, where an image has several channels
    endings: tuple[str, ...] = ()  # of the names of files, by which channels were told apart
    names: dict[int, str] = field(default_factory=dict)  # of raw label values
    ignore: int | None = None
    fixed: dict[str, Any] = field(default_factory=dict)  # what goes into the datalist as it is, such as `labels`
    spacing_known: bool = True
    remarks: list[str] = field(default_factory=list)
