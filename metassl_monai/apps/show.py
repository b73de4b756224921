# SPDX-License-Identifier: Apache-2.0
"""Shows the result of a command to a reader, or to a program as JSON."""

from __future__ import annotations

import json
import sys
from typing import Any

from rich.console import Console
from rich.table import Table

from metassl_monai.files import null_for_nan

__all__ = ["show_json", "show_table"]

_WIDTH_OF_A_FILE = 130
"""A log file has no width of its own, and 80 columns would break every cell."""


def show_json(content: Any) -> None:
    """Write one JSON document to standard output, with ``null`` for NaN."""
    sys.stdout.write(json.dumps(null_for_nan(content), indent=2, ensure_ascii=False) + "\n")


def show_table(table: Table, text: str = "") -> None:
    """Write a table to standard output, and lines below it."""
    Console(width=None if sys.stdout.isatty() else _WIDTH_OF_A_FILE).print(table)
    sys.stdout.write(f"{text}\n" if text else "")
