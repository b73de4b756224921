# SPDX-License-Identifier: Apache-2.0
"""Semi-supervised methods, one file each: where reference predictions come from."""

from __future__ import annotations

from .base import Batch, Method, Pair, Step
from .cps import CrossPseudoSupervision
from .mean_teacher import MeanTeacher
from .ramp import GaussianRamp
from .supervised import Supervised

__all__ = [
    "Batch",
    "CrossPseudoSupervision",
    "GaussianRamp",
    "MeanTeacher",
    "Method",
    "Pair",
    "Step",
    "Supervised",
]
