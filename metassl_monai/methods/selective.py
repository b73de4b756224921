# SPDX-License-Identifier: Apache-2.0
"""A Mean Teacher that compares part of the voxels, chosen by entropy: what UA-MT and AC-MT have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor
from typing_extensions import Unpack

from .base import Batch, MethodArguments, Ramp, Step, aside, at_unannotated
from .mean_teacher import MeanTeacher

__all__ = ["SelectiveArguments", "SelectiveMeanTeacher"]


class SelectiveArguments(MethodArguments, total=False):
    """Arguments of :class:`SelectiveMeanTeacher`."""

    schedule: Ramp
    limits: Sequence[float] | None
    decay: float
    noise: float


class SelectiveMeanTeacher(MeanTeacher):
    """:class:`MeanTeacher` whose pair on unlabeled images has a mask. A subclass writes :meth:`selected`.

    Labeled images count everywhere, also with a MetaSSL loss: an annotation needs no selection. There the selection
    comes on top of the regions, and moves the thresholds by the selected voxels only.

    Args:
        network: the student.
        labeled_loss: see :class:`Method`.
        unlabeled_loss: see :class:`Method`; :class:`SoftmaxMSELoss` is the methods' own.
        ramp: see :class:`Method`.
        schedule: rises from 0 to 1 over the training run, as ``GaussianRamp(iterations, maximum=1.0)`` does.
        limits: the limit of the entropy at 0 and at 1 of the schedule, in parts of the largest entropy ln C; those of
            the paper when None.
        decay: see :class:`MeanTeacher`.
        noise: see :class:`MeanTeacher`.

    Raises:
        ValueError: when a limit lies outside [0, 1].
    """

    published_limits: ClassVar[tuple[float, float]]

    def __init__(
        self,
        *shared: Any,
        schedule: Ramp,
        limits: Sequence[float] | None = None,
        decay: float = 0.99,
        noise: float = 0.1,
        **named: Unpack[MethodArguments],
    ) -> None:
        limits = self.published_limits if limits is None else tuple(limits)
        if not all(0 <= limit <= 1 for limit in limits):
            raise ValueError(f"limits={limits}: choose parts of the largest entropy, between 0 and 1.")
        super().__init__(*shared, decay=decay, noise=noise, **named)
        self.schedule = schedule
        self.limits = limits

    def pairs(self, batch: Batch, step: int) -> Step:
        """Judge the student by the teacher on both streams, on unlabeled images where it is selected."""
        result = super().pairs(batch, step)
        start, end = self.limits
        limit = start + (end - start) * self.schedule(step)
        labeled, unlabeled = result.pairs
        mask = self.selected(unlabeled.prediction, batch["unlabeled"]["image"], limit)
        result = result._replace(pairs=[labeled, unlabeled._replace(mask=mask)])
        if not self.partial_labels:
            return result
        chosen = aside(lambda x: self.selected(labeled.prediction, x, limit), batch["labeled"]["image"])
        missing = at_unannotated(labeled._replace(mask=chosen), batch["labeled"]["label"])
        return result._replace(unannotated=[missing])

    def selected(self, prediction: Tensor, images: Tensor, limit: float) -> Tensor:
        """Return where the unlabeled pair counts.

        Args:
            prediction: the student's logits, ``(B, C, *spatial)``.
            images: the unlabeled images, ``(B, channels, *spatial)``.
            limit: of the normalized entropy.

        Returns:
            Booleans, ``(B, 1, *spatial)``.
        """
        raise NotImplementedError(f"{type(self).__name__} must write selected(prediction, images, limit).")
