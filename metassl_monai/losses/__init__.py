# SPDX-License-Identifier: Apache-2.0
"""Losses for semi-supervised segmentation. Logits in, a scalar out; they need nothing but torch."""

from __future__ import annotations

from .backbone import CrossEntropyDiceLoss, KLDivergenceLoss, PseudoLabelDiceLoss, PseudoLabelLoss, SoftmaxMSELoss
from .conflict import ConflictPseudoLabelLoss
from .decoupled import DecoupledConsistencyLoss
from .linear_dice import CrossEntropyLinearDiceLoss, PseudoLabelLinearDiceLoss
from .metassl import MetaSSLLabeledLoss, MetaSSLUnlabeledLoss
from .monitored import MonitoredLoss
from .presets import PRESETS, metassl_losses
from .rectified import UncertaintyRectifiedLoss
from .region_accuracy import RegionAccuracyWeights
from .regions import Quadripartition, Region
from .released import ReleasedLabeledLoss, ReleasedUnlabeledLoss
from .reliable import ReliablePseudoLabelLoss
from .rival_thresholds import FlexMatchThreshold, FreeMatchThreshold
from .sharpened import SharpenedMSELoss
from .thresholds import AdaptiveThreshold, FixedThreshold
from .weights import LABELED_ORDER, UNLABELED_ORDER, FixedWeights, RegionWeights

__all__ = [
    "LABELED_ORDER",
    "PRESETS",
    "UNLABELED_ORDER",
    "AdaptiveThreshold",
    "ConflictPseudoLabelLoss",
    "CrossEntropyDiceLoss",
    "CrossEntropyLinearDiceLoss",
    "DecoupledConsistencyLoss",
    "FixedThreshold",
    "FixedWeights",
    "FlexMatchThreshold",
    "FreeMatchThreshold",
    "KLDivergenceLoss",
    "MetaSSLLabeledLoss",
    "MetaSSLUnlabeledLoss",
    "MonitoredLoss",
    "PseudoLabelDiceLoss",
    "PseudoLabelLinearDiceLoss",
    "PseudoLabelLoss",
    "Quadripartition",
    "Region",
    "RegionAccuracyWeights",
    "RegionWeights",
    "ReleasedLabeledLoss",
    "ReleasedUnlabeledLoss",
    "ReliablePseudoLabelLoss",
    "SharpenedMSELoss",
    "SoftmaxMSELoss",
    "UncertaintyRectifiedLoss",
    "metassl_losses",
]
