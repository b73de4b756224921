# SPDX-License-Identifier: Apache-2.0
"""Semi-supervised methods, one file each: where reference predictions come from."""

from __future__ import annotations

from .base import Batch, Method, Pair, Step
from .bcp import BidirectionalCopyPaste
from .cct import CrossConsistencyTraining
from .copy_paste_pretraining import CopyPastePretraining
from .cps import CrossPseudoSupervision
from .fixmatch import FixMatch
from .mean_teacher import MeanTeacher
from .ramp import GaussianRamp
from .rdrop import RDrop
from .supervised import Supervised

__all__ = [
    "Batch",
    "BidirectionalCopyPaste",
    "CopyPastePretraining",
    "CrossConsistencyTraining",
    "CrossPseudoSupervision",
    "FixMatch",
    "GaussianRamp",
    "MeanTeacher",
    "Method",
    "Pair",
    "RDrop",
    "Step",
    "Supervised",
]
