# SPDX-License-Identifier: Apache-2.0
"""Pseudo-labels where a mask says that they are sure, soft targets where it says that they are not."""

from __future__ import annotations

from torch import Tensor
from torch.nn.modules.loss import _Loss

from .functional import cross_entropy_map, hard_label
from .precision import at_least_float
from .shapes import check_shapes

__all__ = ["DIRECTED", "SURE", "DecoupledConsistencyLoss"]

SURE, DIRECTED = 1, 2
"""Values of the mask: both predictions are sure; they are not, and the reference is the surer one."""


class DecoupledConsistencyLoss(_Loss):
    """Cross-entropy against the hard label of sure voxels, squared difference in the others: DC-Net's unlabeled loss.

    Chen et al., Decoupled Consistency, MICCAI 2023. Which is which says the mask: 1 sure, 2 not sure, 0 neither. Both
    parts are sums over their voxels divided by *all* voxels, as in the authors' release, so a part of few voxels weighs
    little. The squared difference is that of two tempered softmaxes, mean over the classes, as there. The release adds
    0.3 of the cross-entropy from the start and 1000 of the other part with a ramp; here one ramp is on both, and with
    its usual maximum of 0.1 the default gives 0.3 at its end.

    Args:
        sure_weight: factor on the cross-entropy.
        directed_weight: factor on the squared difference.
        temperature: of both softmaxes; below 1 it sharpens.

    Raises:
        ValueError: when ``temperature`` is not positive.

    Example::

        >>> import torch
        >>> from metassl_monai.losses import DecoupledConsistencyLoss
        >>> input, reference = torch.zeros(1, 2, 2), torch.tensor([[[9.0, 9.0], [-9.0, -9.0]]])
        >>> loss = DecoupledConsistencyLoss(sure_weight=1.0, directed_weight=1.0)
        >>> round(loss(input, reference, mask=torch.tensor([[[1, 2]]])).item(), 3)  # (ln 2 + 0.25) / 2
        0.472
    """

    def __init__(self, sure_weight: float = 3.0, directed_weight: float = 1000.0, temperature: float = 0.5) -> None:
        super().__init__()
        if temperature <= 0:
            raise ValueError(f"temperature={temperature}: choose a positive one; the authors' is 0.5.")
        self.sure_weight = sure_weight
        self.directed_weight = directed_weight
        self.temperature = temperature

    def forward(
        self, input: Tensor, reference: Tensor, label: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Compute the loss; arguments and result as in :class:`MetaSSLUnlabeledLoss`, but for the values of ``mask``.

        Without a mask all voxels are sure.
        """
        check_shapes(input, reference=reference, label=label, mask=mask)
        cross_entropy = cross_entropy_map(input, hard_label(reference, label))
        if mask is None:
            return self.sure_weight * cross_entropy.mean()
        p = (at_least_float(input) / self.temperature).softmax(dim=1)
        q = (at_least_float(reference.detach()) / self.temperature).softmax(dim=1)
        square = (p - q).square().mean(dim=1, keepdim=True)
        sure, directed = (cross_entropy * (mask == SURE)).mean(), (square * (mask == DIRECTED)).mean()
        return self.sure_weight * sure + self.directed_weight * directed
