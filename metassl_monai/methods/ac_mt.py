# SPDX-License-Identifier: Apache-2.0
"""Ambiguity-consensus Mean Teacher: learn where the student is in doubt (Xu et al., AC-MT, MedIA 2023)."""

from __future__ import annotations

import torch
from torch import Tensor

from metassl_monai.losses.functional import normalized_entropy

from .selective import SelectiveMeanTeacher

__all__ = ["AmbiguityConsensusMeanTeacher"]


class AmbiguityConsensusMeanTeacher(SelectiveMeanTeacher):
    """The student follows the teacher where its own prediction has much entropy: the ambiguous voxels.

    The contrary of :class:`UncertaintyAwareMeanTeacher`: what is certain teaches nothing new. Of the ways to find
    ambiguous voxels in the authors' release this is the one by entropy. The limit is the release's, which rises from
    0.75 to 0.95 of the largest entropy; a remark there keeps another one, from 0.75 down to 0.6, which is
    ``limits=(0.75, 0.6)``. Which of the two the paper reports is not certain, nor is the choice for more than two
    classes, which the release does not have. The common benchmark code lacks the method.

    A MetaSSL loss then sees ambiguous voxels only, and its thresholds are the mean confidence of these. Arguments as in
    :class:`SelectiveMeanTeacher`.
    """

    published_limits = (0.75, 0.95)

    @torch.no_grad()
    def selected(self, prediction: Tensor, images: Tensor, limit: float) -> Tensor:
        """Where the student is in doubt."""
        return normalized_entropy(prediction) >= limit
