# SPDX-License-Identifier: Apache-2.0
"""The confidence above which a reference is trusted, for all classes at once or for each class."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from metassl_monai.options import check_option

from .class_maps import class_sums, histogram, look_up
from .functional import sum_over_ranks

__all__ = ["AdaptiveThreshold", "FixedThreshold", "Threshold"]


class Threshold(nn.Module):
    """Base of all thresholds: a state that a batch may move, and what is read of it."""

    values: Tensor

    @torch.no_grad()
    def update(
        self, confidence: Tensor, label: Tensor, mask: Tensor | None = None, reference: Tensor | None = None
    ) -> None:
        """Move the thresholds by a batch in training mode; in evaluation mode do nothing.

        Args:
            confidence: confidence of the reference, any shape.
            label: label of the reference, class indices, same shape.
            mask: non-zero where a voxel counts, same shape.
            reference: logits of the reference, ``(B, C, *spatial)``, for thresholds that look at all probabilities.
        """
        if self.training:
            self._move(confidence, label, mask, reference)

    def forward(self, label: Tensor) -> Tensor:
        """Return the threshold of every voxel, of the shape of ``label``, class indices. Nothing moves."""
        return look_up(self.values, label)

    def _move(self, confidence: Tensor, label: Tensor, mask: Tensor | None, reference: Tensor | None) -> None:
        """Move the state; in a threshold that is constant, nothing."""


class FixedThreshold(Threshold):
    """One constant threshold for all classes (MetaSSL, Table V).

    Args:
        value: the threshold, in [0, 1].

    Raises:
        ValueError: when ``value`` lies outside [0, 1].
    """

    def __init__(self, value: float) -> None:
        super().__init__()
        if not 0 <= value <= 1:
            raise ValueError(f"value={value} is no confidence: choose a threshold between 0 and 1.")
        self.register_buffer("values", torch.tensor([value], dtype=torch.float32), persistent=False)

    def forward(self, label: Tensor) -> Tensor:
        """Return the threshold, shape ``(1,)``."""
        return self.values


class AdaptiveThreshold(Threshold):
    """A threshold per class that follows the mean confidence of the voxels of that class (MetaSSL, Eq. 9-10).

    In training mode each update moves every class present in the batch, ``t = keep * t + (1 - keep) * mean``; a class
    that is absent keeps its own. In evaluation mode nothing moves.
    Under ``torch.distributed`` the statistics are summed over the ranks, so all ranks hold the same thresholds.

    The paper's Eq. 10 puts 0.99 on the new value while its text follows Mean Teacher, where 0.99 is on the old one:
    ``keep`` is the weight of the *old* value, and ``keep=0.01`` is Eq. 10 to the letter.

    Args:
        num_classes: number of classes, background included.
        keep: weight of the old threshold, in [0, 1].
        initial: threshold of every class before the first update, in [0, 1].
        absent: ``"hold"`` keeps the threshold of a class that is absent from a batch; ``"decay"`` divides each sum by
            one voxel too many, as the authors' release does, which moves the threshold of an absent class towards 0.
        cap: largest threshold that is used, in [0, 1]; the state itself goes on above it.

    Raises:
        ValueError: when ``keep``, ``initial`` or ``cap`` lies outside [0, 1], or ``absent`` is unknown.

    Example::

        >>> import torch
        >>> from metassl_monai.losses import AdaptiveThreshold
        >>> threshold = AdaptiveThreshold(num_classes=2, keep=0.9)
        >>> threshold.update(torch.tensor([0.9, 0.7]), torch.tensor([1, 1]))
        >>> threshold.values  # class 0 was absent
        tensor([0.5000, 0.5300])
    """

    def __init__(
        self,
        num_classes: int,
        keep: float = 0.99,
        initial: float = 0.5,
        absent: Literal["hold", "decay"] = "hold",
        cap: float = 1.0,
    ) -> None:
        super().__init__()
        check_fractions(keep=keep, initial=initial, cap=cap)
        check_option("absent", absent, ("hold", "decay"))
        self.num_classes = num_classes
        self.keep = keep
        self.absent = absent
        self.cap = cap
        self.register_buffer("values", torch.full((num_classes,), initial, dtype=torch.float32))

    def forward(self, label: Tensor) -> Tensor:
        """Return the threshold of every voxel, at most ``cap``, see :class:`Threshold`."""
        return look_up(self.values.clamp_max(self.cap), label)

    def _move(self, confidence: Tensor, label: Tensor, mask: Tensor | None, reference: Tensor | None) -> None:
        sums, counts = sum_over_ranks(torch.stack(class_statistics(confidence, label, mask, self.num_classes)))
        if self.absent == "decay":
            self.values.lerp_((sums / (counts + 1)).to(self.values.dtype), 1 - self.keep)
            return
        mean = sums / counts.clamp_min(1)
        moved = torch.lerp(mean.to(self.values.dtype), self.values, self.keep)
        self.values.copy_(torch.where(counts > 0, moved, self.values))


def class_statistics(confidence: Tensor, label: Tensor, mask: Tensor | None, num_classes: int) -> tuple[Tensor, Tensor]:
    """Sum of ``confidence`` and number of voxels of each class, shape ``(C,)`` each, without a one-hot map."""
    if mask is None:
        return class_sums(confidence, label, num_classes), histogram(label, num_classes).to(confidence.dtype)
    inside = (mask != 0).to(confidence.dtype)
    return class_sums(confidence * inside, label, num_classes), class_sums(inside, label, num_classes)


def check_fractions(**fractions: float) -> None:
    """Raise ValueError unless each of the named numbers lies in [0, 1]."""
    for name, value in fractions.items():
        if not 0 <= value <= 1:
            raise ValueError(f"{name}={value} must lie between 0 and 1.")
