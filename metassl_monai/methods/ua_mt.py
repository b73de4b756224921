# SPDX-License-Identifier: Apache-2.0
"""Uncertainty-aware Mean Teacher: learn where the teacher is sure of itself (Yu et al., UA-MT, MICCAI 2019)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from typing_extensions import Unpack

from metassl_monai.losses.functional import normalized_entropy

from .selective import SelectiveArguments, SelectiveMeanTeacher

__all__ = ["UncertaintyAwareMeanTeacher"]


class UncertaintyAwareMeanTeacher(SelectiveMeanTeacher):
    """The student follows the teacher where several noisy passes of the teacher, averaged, have little entropy.

    The uncertainty is the entropy of the mean probabilities (Eq. 2); what counts lies below a limit that rises from 3/4
    of the largest entropy to all of it (Eq. 3). That largest entropy is ln C for C classes. The paper has two classes;
    common benchmark code keeps ln 2 for four, so that the selection stays strict to the end. Nor does it average the
    squared differences over the classes, so its consistency weighs ``C / 2`` times as much as here. As in both, the
    reference is one noisy pass and not the mean; the teacher keeps its dropout, and the passes see the unlabeled images
    alone.

    Args:
        network: the student. Dropout makes the passes differ by more than the noise.
        labeled_loss: see :class:`Method`.
        unlabeled_loss: see :class:`Method`; :class:`SoftmaxMSELoss` is the method's own.
        ramp: see :class:`Method`.
        schedule: see :class:`SelectiveMeanTeacher`.
        limits: see :class:`SelectiveMeanTeacher`.
        decay: see :class:`MeanTeacher`.
        noise: see :class:`MeanTeacher`.
        passes: number of passes for the uncertainty. One after the other, so that they need no more memory than one.

    Raises:
        ValueError: when ``passes`` is not positive, or a limit lies outside [0, 1].
    """

    published_limits = (0.75, 1.0)

    def __init__(self, *shared: Any, passes: int = 8, **named: Unpack[SelectiveArguments]) -> None:
        if passes < 1:
            raise ValueError(f"passes={passes}: the uncertainty needs at least one pass of the teacher.")
        super().__init__(*shared, **named)
        self.passes = passes

    @torch.no_grad()
    def selected(self, prediction: Tensor, images: Tensor, limit: float) -> Tensor:
        """Where the teacher is sure."""
        log_sum = self.teacher(self.noisy(images)).log_softmax(dim=1)
        for _ in range(self.passes - 1):
            log_sum = torch.logaddexp(log_sum, self.teacher(self.noisy(images)).log_softmax(dim=1))
        return normalized_entropy(log_sum) < limit  # a softmax of the log of the sum is the mean
