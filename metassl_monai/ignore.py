# SPDX-License-Identifier: Apache-2.0
"""What stands in an annotation where nobody annotated.

A datalist names the raw value of its files (``"ignore": 255``); everywhere else in this package it is one fixed number.
"""

from __future__ import annotations

__all__ = ["IGNORE"]

IGNORE = -1
"""In place of a class index: below all of them, so that it is no foreground where that is ``label > 0``."""
