# SPDX-License-Identifier: Apache-2.0
"""Watch the regions of a loss that has none."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.loss import _Loss

from .metassl import MetaSSLLabeledLoss, MetaSSLUnlabeledLoss
from .regions import Quadripartition

__all__ = ["MonitoredLoss"]


class MonitoredLoss(_Loss):
    """A loss as it is, beside a MetaSSL loss that only looks: its thresholds move and its regions are counted.

    So plain cross pseudo supervision can be shown in MetaSSL's terms (MetaSSL, Fig. 8-11). Costs a second loss.

    Args:
        loss: the loss that trains, labeled or unlabeled.
        metassl: the MetaSSL loss of the same kind; its value is thrown away.

    Example::

        >>> import torch
        >>> from metassl_monai.losses import MetaSSLUnlabeledLoss, MonitoredLoss, PseudoLabelLoss
        >>> loss = MonitoredLoss(PseudoLabelLoss(), MetaSSLUnlabeledLoss(num_classes=2))
        >>> input, reference = torch.randn(1, 2, 4, 4), torch.randn(1, 2, 4, 4)
        >>> bool(loss(input, reference) == PseudoLabelLoss()(input, reference)), loss.regions.shape
        (True, torch.Size([1, 1, 4, 4]))
    """

    def __init__(self, loss: _Loss, metassl: MetaSSLLabeledLoss | MetaSSLUnlabeledLoss) -> None:
        super().__init__()
        self.loss = loss
        self.metassl = metassl

    watches_reference = True

    @property
    def reads_reference(self) -> bool:
        """Whether the loss that trains reads the reference."""
        return getattr(self.loss, "reads_reference", True)

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Call the MetaSSL loss without gradient and return the loss."""
        with torch.no_grad():
            self.metassl(*args, **kwargs)
        value: Tensor = self.loss(*args, **kwargs)
        return value

    @property
    def measures(self) -> bool:
        """Whether the MetaSSL loss measures its weights on labeled images."""
        return getattr(self.metassl, "measures", False)

    def measure(self, *args: Any, **kwargs: Any) -> None:
        """Let the MetaSSL loss measure, see :meth:`MetaSSLUnlabeledLoss.measure`."""
        metassl: Any = self.metassl
        metassl.measure(*args, **kwargs)

    @property
    def partition(self) -> Quadripartition:
        """The partition of the MetaSSL loss."""
        return self.metassl.partition

    @property
    def regions(self) -> Tensor | None:
        """Regions of the last call, see :class:`MetaSSLUnlabeledLoss`."""
        return self.metassl.regions

    @property
    def region_counts(self) -> Tensor | None:
        """Voxels of each region in the last call, shape ``(4,)``."""
        return self.metassl.region_counts

    @property
    def foreground_counts(self) -> Tensor | None:
        """Those among them that the reference does not call background, shape ``(4,)``."""
        return self.metassl.foreground_counts
