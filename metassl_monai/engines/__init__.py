# SPDX-License-Identifier: Apache-2.0
"""Ignite engines for semi-supervised training."""

from __future__ import annotations

from .paired import PairedDataLoader
from .trainer import SemiSupervisedTrainer, prepare_streams

__all__ = ["PairedDataLoader", "SemiSupervisedTrainer", "prepare_streams"]
