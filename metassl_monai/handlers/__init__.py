# SPDX-License-Identifier: Apache-2.0
"""Ignite handlers: exact resume, statistics, hidden labels, pictures, history, progress, tracking."""

from __future__ import annotations

from .attached import attach_tables, attach_to_run
from .average_network import AverageNetwork
from .case_table import CaseTable
from .checkpoint import TrainingCheckpoint
from .hidden_labels import HiddenLabels
from .history import History
from .kept_network import BestNetwork, LastNetwork
from .pictures import TrainingCurves, TrainingPictures
from .progress import RunProgress
from .region_pictures import RegionPictures
from .run_facts import run_facts
from .saved_config import SavedConfig
from .seed import SeedEachEpoch
from .statistics import TrainingStatistics
from .subject_dice import SubjectDice
from .tracking import SafeMLFlowHandler
from .validation_pictures import ValidationPictures

__all__ = [
    "AverageNetwork",
    "BestNetwork",
    "CaseTable",
    "HiddenLabels",
    "History",
    "LastNetwork",
    "RegionPictures",
    "RunProgress",
    "SafeMLFlowHandler",
    "SavedConfig",
    "SeedEachEpoch",
    "SubjectDice",
    "TrainingCheckpoint",
    "TrainingCurves",
    "TrainingPictures",
    "TrainingStatistics",
    "ValidationPictures",
    "attach_tables",
    "attach_to_run",
    "run_facts",
]
