# SPDX-License-Identifier: Apache-2.0
"""Mean Teacher: a student learns from a teacher that is the moving average of itself (Tarvainen and Valpola, 2017)."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor
from typing_extensions import Unpack

from .base import Batch, Method, MethodArguments, Step, all_images, pair_streams
from .ema import ema_update

__all__ = ["MeanTeacher"]


class MeanTeacher(Method):
    """The student is judged by its exponential moving average, which sees noisier images.

    The teacher stays in training mode, as in the papers: batch statistics and dropout are part of the perturbation. It
    sees both streams in one batch, as in MetaSSL's release; with a labeled loss that reads no reference the unlabeled
    images alone, as in common benchmark code.

    Args:
        network: the student.
        labeled_loss: see :class:`Method`.
        unlabeled_loss: see :class:`Method`; :class:`SoftmaxMSELoss` is the method's own.
        ramp: see :class:`Method`.
        decay: weight of the old teacher, reached as ``min(1 - 1 / (step + 1), decay)``.
        noise: standard deviation of the Gaussian noise on the teacher's images, clamped at twice its value, in units
            of the image's intensity.
    """

    names = {"labeled": ("network",), "unlabeled": ("network",)}

    def __init__(self, *shared: Any, decay: float = 0.99, noise: float = 0.1, **named: Unpack[MethodArguments]) -> None:
        super().__init__(*shared, **named)
        self.teacher = copy.deepcopy(self.network).requires_grad_(False)
        self.decay = decay
        self.noise = noise

    def pairs(self, batch: Batch, step: int) -> Step:
        """Judge the student by the teacher on both streams."""
        student = self.network(all_images(batch))
        target = batch["labeled"]["label"]
        teacher = self.judged(batch, student[: len(target)])
        return Step(pair_streams(student, teacher, "network", target), {}, student[: len(target)])

    @torch.no_grad()
    def judged(self, batch: Batch, own: Tensor) -> Tensor:
        """Logits of the teacher on both streams; ``own``, of the labeled images, where its own would be idle."""
        if self.reads_labeled_references:
            logits: Tensor = self.teacher(self.noisy(all_images(batch)))
            return logits
        unlabeled = self.teacher(self.noisy(batch["unlabeled"]["image"]))
        labeled = self.labeled_reference(lambda x: self.teacher(self.noisy(x)), batch["labeled"]["image"], own)
        return torch.cat([labeled, unlabeled])

    def noisy(self, images: Tensor) -> Tensor:
        """What the teacher sees of images, ``(B, channels, *spatial)``."""
        if self.noise == 0:
            return images
        return images + (torch.randn_like(images) * self.noise).clamp(-2 * self.noise, 2 * self.noise)

    def update(self, step: int) -> None:
        """Move the teacher towards the student; the first step copies it."""
        ema_update(self.teacher, self.network, min(1 - 1 / (step + 1), self.decay))
