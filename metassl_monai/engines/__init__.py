# SPDX-License-Identifier: Apache-2.0
"""Ignite engines for semi-supervised training."""

from __future__ import annotations

from .batch_norm import synchronize_batch_norm
from .finite_losses import FiniteLosses
from .graphed_step import GraphedStep
from .paired import PairedDataLoader
from .process_group import leave_process_group
from .trainer import SemiSupervisedTrainer, prepare_streams

__all__ = [
    "FiniteLosses",
    "GraphedStep",
    "PairedDataLoader",
    "SemiSupervisedTrainer",
    "leave_process_group",
    "prepare_streams",
    "synchronize_batch_norm",
]
