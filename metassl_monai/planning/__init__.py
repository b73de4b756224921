# SPDX-License-Identifier: Apache-2.0
"""Anybody's own data: what lies in folders becomes a datalist, a plan and a bundle."""

from __future__ import annotations

from .collect import Collected, collect_folder
from .fingerprint import device_at_hand, take_fingerprint
from .folders import image_cases
from .found import Case
from .plan import Decision, PlanError, make_plan
from .write import write_bundle

__all__ = [
    "Case",
    "Collected",
    "Decision",
    "PlanError",
    "collect_folder",
    "device_at_hand",
    "image_cases",
    "make_plan",
    "take_fingerprint",
    "write_bundle",
]
