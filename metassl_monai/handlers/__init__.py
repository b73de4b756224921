# SPDX-License-Identifier: Apache-2.0
"""Ignite handlers: exact resume, statistics, pictures, progress, tracking."""

from __future__ import annotations

from .case_table import CaseTable
from .checkpoint import BestNetwork, TrainingCheckpoint
from .pictures import TrainingPictures
from .progress import RunProgress
from .seed import SeedEachEpoch
from .statistics import TrainingStatistics
from .tracking import SafeMLFlowHandler

__all__ = [
    "BestNetwork",
    "CaseTable",
    "RunProgress",
    "SafeMLFlowHandler",
    "SeedEachEpoch",
    "TrainingCheckpoint",
    "TrainingPictures",
    "TrainingStatistics",
]
