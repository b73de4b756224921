# SPDX-License-Identifier: Apache-2.0
"""The thresholds that MetaSSL compares its own with, carried over from images to voxels (MetaSSL, Table V)."""

from __future__ import annotations

import torch
from torch import Tensor

from .functional import sum_over_ranks
from .precision import at_least_float
from .thresholds import Threshold, check_fractions, class_statistics

__all__ = ["FlexMatchThreshold", "FreeMatchThreshold"]


class FlexMatchThreshold(Threshold):
    """Thresholds that fall with how rarely a class is confident (Zhang et al., FlexMatch, NeurIPS 2021, Eq. 5-8, 11).

    With ``n_c`` voxels of class ``c`` above ``value`` and ``n_0`` voxels of any class below it,
    ``b_c = n_c / max(max_c n_c, n_0)`` and the threshold is ``value * b_c / (2 - b_c)``. The original remembers the
    last confident label of every image; here the counts are moving averages over batches.

    Args:
        num_classes: number of classes, background included.
        value: the fixed threshold that is scaled, in [0, 1].
        keep: weight of the old counts, in [0, 1].

    Raises:
        ValueError: when ``value`` or ``keep`` lies outside [0, 1].

    Example::

        >>> import torch
        >>> from metassl_monai.losses import FlexMatchThreshold
        >>> threshold = FlexMatchThreshold(num_classes=2)
        >>> threshold.update(torch.tensor([0.99, 0.98, 0.97, 0.6]), torch.tensor([0, 0, 1, 1]))
        >>> threshold.values
        tensor([0.9500, 0.3167])
    """

    counts: Tensor

    def __init__(self, num_classes: int, value: float = 0.95, keep: float = 0.99) -> None:
        super().__init__()
        check_fractions(value=value, keep=keep)
        self.num_classes = num_classes
        self.value = value
        self.keep = keep
        self.register_buffer("counts", torch.zeros(num_classes + 1, dtype=torch.float32))
        self.register_buffer("values", torch.zeros(num_classes, dtype=torch.float32))

    def _move(self, confidence: Tensor, label: Tensor, mask: Tensor | None, reference: Tensor | None) -> None:
        sure = (confidence > self.value).to(confidence.dtype)
        confident, present = class_statistics(sure, label, mask, self.num_classes)
        counts = sum_over_ranks(torch.cat([confident, (present - confident).sum()[None]]))
        move = (1 - self.keep) * (counts.sum() > 0)  # an empty mask says nothing
        self.counts.add_((counts.to(self.counts.dtype) - self.counts) * move)
        confident, unsure = self.counts[:-1], self.counts[-1]
        share = confident / torch.maximum(confident.max(), unsure).clamp_min(torch.finfo(torch.float32).tiny)
        self.values.copy_(self.value * share / (2 - share))


class FreeMatchThreshold(Threshold):
    """A global threshold, scaled by how much of the predictions each class has (Wang et al., FreeMatch, ICLR 2023).

    ``g`` follows the mean confidence and ``q_c`` the mean probability of class ``c``, both from ``1 / C`` on; the
    threshold is ``g * q_c / max_c q_c`` (Eq. 5-8). The fairness loss of FreeMatch is not part of it.

    Args:
        num_classes: number of classes, background included.
        keep: weight of the old values, in [0, 1].

    Raises:
        ValueError: when ``keep`` lies outside [0, 1]; in training mode, when the reference's logits are missing.

    Example::

        >>> import torch
        >>> from metassl_monai.losses import FreeMatchThreshold, Quadripartition
        >>> threshold = FreeMatchThreshold(num_classes=2, keep=0.5)
        >>> logits = torch.tensor([[0.8, 0.8], [0.2, 0.2]]).log()[None]
        >>> _ = Quadripartition(2, threshold)(logits, torch.zeros(1, 1, 2))
        >>> threshold.values
        tensor([0.6500, 0.3500])
    """

    overall: Tensor
    shares: Tensor

    def __init__(self, num_classes: int, keep: float = 0.999) -> None:
        super().__init__()
        check_fractions(keep=keep)
        self.num_classes = num_classes
        self.keep = keep
        uniform = torch.full((num_classes,), 1 / num_classes, dtype=torch.float32)
        self.register_buffer("overall", uniform[0].clone())
        self.register_buffer("shares", uniform)
        self.register_buffer("values", uniform.clone())

    def _move(self, confidence: Tensor, label: Tensor, mask: Tensor | None, reference: Tensor | None) -> None:
        if reference is None:
            raise ValueError("FreeMatchThreshold needs the reference's logits: call it through Quadripartition.")
        probabilities = at_least_float(reference).softmax(dim=1)
        inside = confidence.new_ones(1).expand_as(confidence) if mask is None else (mask != 0).to(confidence.dtype)
        voxels = [0, *range(2, probabilities.ndim)]
        sums = [(confidence * inside).sum()[None], (probabilities * inside).sum(dim=voxels), inside.sum()[None]]
        statistics = sum_over_ranks(torch.cat(sums))
        means = (statistics[:-1] / statistics[-1].clamp_min(1)).to(self.shares.dtype)
        move = (1 - self.keep) * (statistics[-1] > 0)
        self.overall.add_((means[0] - self.overall) * move)
        self.shares.add_((means[1:] - self.shares) * move)
        self.values.copy_(self.overall * self.shares / self.shares.max())
