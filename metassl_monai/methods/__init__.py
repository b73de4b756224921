# SPDX-License-Identifier: Apache-2.0
"""Semi-supervised methods, one file each: where reference predictions come from."""

from __future__ import annotations

from .ac_mt import AmbiguityConsensusMeanTeacher
from .alhvr import ALHVR
from .base import Batch, Method, Pair, Step
from .bcp import BidirectionalCopyPaste
from .cct import CrossConsistencyTraining
from .ccvc import ConflictCrossView
from .cml import CrossViewMutualLearning
from .cml_pretraining import CrossViewPretraining
from .copy_paste_pretraining import CopyPastePretraining
from .cps import CrossPseudoSupervision
from .dc_net import DecoupledConsistency
from .dualnet import DualNet
from .em import EntropyMinimization
from .fixmatch import FixMatch
from .ict import InterpolationConsistency
from .mc_net import MutualConsistency
from .mcf import MutualCorrection
from .mean_teacher import MeanTeacher
from .mlrp import ReliableMutualLearning
from .ramp import GaussianRamp
from .rdrop import RDrop
from .sdcl import DiscrepancyCorrection
from .supervised import Supervised
from .ua_mt import UncertaintyAwareMeanTeacher
from .urpc import UncertaintyRectifiedPyramid

__all__ = [
    "ALHVR",
    "AmbiguityConsensusMeanTeacher",
    "Batch",
    "BidirectionalCopyPaste",
    "ConflictCrossView",
    "CopyPastePretraining",
    "CrossConsistencyTraining",
    "CrossPseudoSupervision",
    "CrossViewMutualLearning",
    "CrossViewPretraining",
    "DecoupledConsistency",
    "DiscrepancyCorrection",
    "DualNet",
    "EntropyMinimization",
    "FixMatch",
    "GaussianRamp",
    "InterpolationConsistency",
    "MeanTeacher",
    "Method",
    "MutualConsistency",
    "MutualCorrection",
    "Pair",
    "RDrop",
    "ReliableMutualLearning",
    "Step",
    "Supervised",
    "UncertaintyAwareMeanTeacher",
    "UncertaintyRectifiedPyramid",
]
