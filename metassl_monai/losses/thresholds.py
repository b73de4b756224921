# SPDX-License-Identifier: Apache-2.0
"""The confidence above which a reference is trusted, for all classes at once or for each class."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn

from .class_maps import class_sums, look_up

__all__ = ["AdaptiveThreshold", "FixedThreshold"]


class FixedThreshold(nn.Module):
    """One constant threshold for all classes (MetaSSL, Table V).

    Args:
        value: the threshold, in [0, 1].

    Raises:
        ValueError: when ``value`` lies outside [0, 1].
    """

    values: Tensor

    def __init__(self, value: float) -> None:
        super().__init__()
        if not 0 <= value <= 1:
            raise ValueError(f"value={value} is no confidence: choose a threshold between 0 and 1.")
        self.register_buffer("values", torch.tensor([value], dtype=torch.float32), persistent=False)

    def forward(
        self, confidence: Tensor, label: Tensor, mask: Tensor | None = None, reference: Tensor | None = None
    ) -> Tensor:
        """Return the threshold, shape ``(1,)``."""
        return self.values.to(confidence.dtype)


class AdaptiveThreshold(nn.Module):
    """A threshold per class that follows the mean confidence of the voxels of that class (MetaSSL, Eq. 9-10).

    In training mode each call first moves every class present in the batch, ``t = keep * t + (1 - keep) * mean``, and
    then returns the moved thresholds; a class that is absent keeps its own. In evaluation mode nothing moves.
    Under ``torch.distributed`` the statistics are summed over the ranks, so all ranks hold the same thresholds.

    The paper's Eq. 10 puts 0.99 on the new value while its text follows Mean Teacher, where 0.99 is on the old one:
    ``keep`` is the weight of the *old* value, and ``keep=0.01`` is Eq. 10 to the letter.

    Args:
        num_classes: number of classes, background included.
        keep: weight of the old threshold, in [0, 1].
        initial: threshold of every class before the first update, in [0, 1].
        absent: a class that is absent from a batch ``"hold"``s its threshold; ``"decay"`` divides each sum by one voxel
            too many, as the authors' release does, which moves the threshold of an absent class towards 0.
        cap: largest threshold that is used, in [0, 1]; the state itself goes on above it.

    Raises:
        ValueError: when ``keep``, ``initial`` or ``cap`` lies outside [0, 1], or ``absent`` is unknown.

    Example::

        >>> import torch
        >>> from metassl_monai.losses import AdaptiveThreshold
        >>> threshold = AdaptiveThreshold(num_classes=2, keep=0.9)
        >>> _ = threshold(torch.tensor([0.9, 0.7]), torch.tensor([1, 1]))
        >>> threshold.values  # class 0 was absent
        tensor([0.5000, 0.5300])
    """

    values: Tensor

    def __init__(
        self, num_classes: int, keep: float = 0.99, initial: float = 0.5, absent: str = "hold", cap: float = 1.0
    ) -> None:
        super().__init__()
        for name, value in (("keep", keep), ("initial", initial), ("cap", cap)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name}={value} must lie between 0 and 1.")
        if absent not in ("hold", "decay"):
            raise ValueError(f"absent={absent!r} is unknown: choose 'hold' or 'decay'.")
        self.num_classes = num_classes
        self.keep = keep
        self.absent = absent
        self.cap = cap
        self.register_buffer("values", torch.full((num_classes,), initial, dtype=torch.float32))

    @torch.no_grad()
    def forward(
        self, confidence: Tensor, label: Tensor, mask: Tensor | None = None, reference: Tensor | None = None
    ) -> Tensor:
        """Update the thresholds in training mode and return that of every voxel.

        Args:
            confidence: confidence of the reference, any shape.
            label: label of the reference, class indices, same shape.
            mask: non-zero where a voxel counts, same shape.
            reference: not used; other thresholds look at all probabilities.

        Returns:
            Thresholds, same shape as ``label``.
        """
        if self.training:
            self._update(confidence, label, mask)
        return look_up(self.values.clamp_max(self.cap).to(confidence.dtype), label)

    def _update(self, confidence: Tensor, label: Tensor, mask: Tensor | None) -> None:
        sums, counts = sum_over_ranks(torch.stack(class_statistics(confidence, label, mask, self.num_classes)))
        if self.absent == "decay":
            self.values.lerp_((sums / (counts + 1)).to(self.values.dtype), 1 - self.keep)
            return
        mean = sums / counts.clamp_min(1)
        moved = torch.lerp(mean.to(self.values.dtype), self.values, self.keep)
        self.values.copy_(torch.where(counts > 0, moved, self.values))


def sum_over_ranks(statistics: Tensor) -> Tensor:
    """Sum over all processes of a distributed run, so that all hold the same thresholds; in place."""
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(statistics)
    return statistics


def class_statistics(confidence: Tensor, label: Tensor, mask: Tensor | None, num_classes: int) -> tuple[Tensor, Tensor]:
    """Sum of ``confidence`` and number of voxels of each class, shape ``(C,)`` each, without a one-hot map."""
    inside = torch.ones_like(confidence) if mask is None else (mask != 0).to(confidence.dtype)
    return class_sums(confidence * inside, label, num_classes), class_sums(inside, label, num_classes)
