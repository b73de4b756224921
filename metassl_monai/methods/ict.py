# SPDX-License-Identifier: Apache-2.0
"""Interpolation consistency: a mixed image shows the mixture of two predictions (Verma et al., ICT, IJCAI 2019)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from typing_extensions import Unpack

from .base import Batch, MethodArguments, Step, pair_streams
from .mean_teacher import MeanTeacher

__all__ = ["InterpolationConsistency"]


class InterpolationConsistency(MeanTeacher):
    """The student sees mixtures of two unlabeled images; the teacher sees both apart, and its probabilities are mixed.

    Each image is mixed with the next one of its batch, with a share of its own for each image. The image that gives the
    mixture its place in the batch has the larger share, so that hidden labels can be told; since the order of a batch
    is random, the mixtures are distributed as if either could have it. Common benchmark code mixes one half of the
    batch with the other; the authors mix logits in their release and predictions in the paper, as here. Labeled images
    are not mixed, as in the benchmark, and the teacher sees no noise. In a batch of one image it is Mean Teacher.

    Args:
        network: the student.
        labeled_loss: see :class:`Method`.
        unlabeled_loss: see :class:`Method`; :class:`SoftmaxMSELoss` is the method's own.
        ramp: see :class:`Method`.
        decay: see :class:`MeanTeacher`.
        alpha: shares are drawn from Beta(alpha, alpha); the smaller, the nearer mixtures are to single images.

    Raises:
        ValueError: when ``alpha`` is not positive.
    """

    def __init__(self, *shared: Any, decay: float = 0.99, alpha: float = 0.2, **named: Unpack[MethodArguments]) -> None:
        if alpha <= 0:
            raise ValueError(f"alpha={alpha}: shares need a positive one, such as the benchmark's 0.2.")
        super().__init__(*shared, decay=decay, noise=0.0, **named)
        self.shares = torch.distributions.Beta(alpha, alpha)

    def pairs(self, batch: Batch, step: int) -> Step:
        """Judge the student by the teacher, on unlabeled images by the mixture of two of its predictions."""
        labeled, target, unlabeled = batch["labeled"]["image"], batch["labeled"]["label"], batch["unlabeled"]["image"]
        share = self.share(unlabeled)
        student = self.network(torch.cat([labeled, share * unlabeled + (1 - share) * unlabeled.roll(1, dims=0)]))
        with torch.no_grad():
            teacher = self.judged(batch, student[: len(target)]).log_softmax(dim=1)
            apart = teacher[len(target) :]
            # log of the mixed probabilities: logits, as every loss takes them
            mixed = torch.logaddexp(apart + share.log(), apart.roll(1, dims=0) + (1 - share).log())
        reference = torch.cat([teacher[: len(target)], mixed])
        return Step(pair_streams(student, reference, "network", target), {}, student[: len(target)])

    def share(self, images: Tensor) -> Tensor:
        """Draw the part of each image in its mixture, in [0.5, 1], shape ``(B, 1, ...)``."""
        share = self.shares.sample((len(images), *[1] * (images.ndim - 1))).to(images)
        return torch.maximum(share, 1 - share)
