# SPDX-License-Identifier: Apache-2.0
"""Anybody's own data: what lies in folders becomes a datalist."""

from __future__ import annotations

from .collect import Collected, collect_folder
from .folders import image_cases
from .found import Case

__all__ = ["Case", "Collected", "collect_folder", "image_cases"]
