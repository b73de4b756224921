# SPDX-License-Identifier: Apache-2.0
"""Mean squared error against a sharpened reference."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor
from torch.nn.modules.loss import _Loss

from metassl_monai.options import check_option

from .functional import masked_mean
from .precision import at_least_float
from .shapes import check_shapes

__all__ = ["SharpenedMSELoss"]

Sharpening: TypeAlias = Literal["renormalized", "per_class"]


class SharpenedMSELoss(_Loss):
    """Squared difference from sharpened probabilities, summed over classes, mean over voxels: ALHVR's unlabeled loss.

    ALHVR, Eq. 22-24. The paper sharpens each class by itself, ``q^(1/T) / (q^(1/T) + (1 - q)^(1/T))``, which is a
    distribution for two classes only: of unsure voxels among four classes nearly nothing is left. The default divides
    ``q^(1/T)`` by its sum over the classes instead, the same for two classes.

    Args:
        temperature: ``T``; 1 leaves the reference as it is, and towards 0 it becomes one-hot.
        sharpening: ``"renormalized"``, or ``"per_class"`` as published.
        detach: stop the gradient into the reference; False lets it pass, as the authors' release does.

    Raises:
        ValueError: when ``temperature`` is not positive or ``sharpening`` is unknown.

    Example::

        >>> import torch
        >>> from metassl_monai.losses import SharpenedMSELoss
        >>> reference = torch.tensor([0.4, 0.3, 0.2, 0.1]).log().view(1, 4, 1)
        >>> [round(SharpenedMSELoss(0.1, name).sharpen(reference).sum().item(), 3) for name in
        ...  ("renormalized", "per_class")]
        [1.0, 0.017]
    """

    def __init__(self, temperature: float = 0.1, sharpening: Sharpening = "renormalized", detach: bool = True) -> None:
        super().__init__()
        if temperature <= 0:
            raise ValueError(f"temperature={temperature}: choose a positive one; the paper's is 0.1.")
        check_option("sharpening", sharpening, get_args(Sharpening))
        self.temperature = temperature
        self.sharpening = sharpening
        self.detach = detach

    def forward(
        self, input: Tensor, reference: Tensor, label: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Compute the loss; arguments and result as in :class:`MetaSSLUnlabeledLoss`. ``label`` plays no role."""
        check_shapes(input, reference=reference, mask=mask)
        p = at_least_float(input).softmax(dim=1)
        q = self.sharpen(reference.detach() if self.detach else reference)
        return masked_mean((p - q).square().sum(dim=1, keepdim=True), mask)

    def sharpen(self, logits: Tensor) -> Tensor:
        """Map logits ``(B, C, *spatial)`` to sharpened probabilities of the same shape, at least float32."""
        logits = at_least_float(logits)
        if self.sharpening == "renormalized":
            return (logits / self.temperature).softmax(dim=1)
        # the sigmoid of the log odds is the published fraction, without powers that underflow
        odds = torch.logit(logits.softmax(dim=1), eps=torch.finfo(logits.dtype).eps)
        return (odds / self.temperature).sigmoid()
