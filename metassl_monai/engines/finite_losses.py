# SPDX-License-Identifier: Apache-2.0
"""The first iteration in which a loss term was NaN or infinite, found without waiting for the device."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from metassl_monai.finite import NotFiniteError

__all__ = ["FiniteLosses"]

_NEVER = torch.iinfo(torch.int64).max


class FiniteLosses:
    """Remember, on the device, when each loss term was first not finite.

    Args:
        tolerant: let single steps pass, which a loss scaler skips; only an epoch without any finite step is refused.

    Example::

        >>> import torch
        >>> from metassl_monai.engines import FiniteLosses
        >>> losses = FiniteLosses()
        >>> losses.see({"labeled/network": torch.tensor(float("nan"))}, iteration=7)
        >>> losses.check()
        Traceback (most recent call last):
        metassl_monai.finite.NotFiniteError: iteration 7: the loss term labeled/network is not finite: ...
    """

    def __init__(self, tolerant: bool = False) -> None:
        self.tolerant = tolerant
        self.reset()

    def reset(self) -> None:
        """Forget what was seen, as at the end of an epoch."""
        self.first: dict[tuple[str, ...], Tensor] = {}
        self.good_steps: Tensor | int = 0

    def see(self, losses: Mapping[str, Tensor], iteration: int) -> None:
        """Look at the terms of one iteration; costs a few small kernels and no wait."""
        bad = ~torch.isfinite(torch.stack([value.detach() for value in losses.values()]))
        first = torch.where(bad, iteration, _NEVER)
        names = tuple(losses)
        self.first[names] = torch.minimum(self.first[names], first) if names in self.first else first
        self.good_steps = self.good_steps + ~bad.any()

    def check(self) -> None:
        """Wait for the device and stop if there was such a term.

        Raises:
            NotFiniteError: with the first such iteration and its loss term.
        """
        found = [
            (iteration, name)
            for names, first in self.first.items()
            for name, iteration in zip(names, first.tolist(), strict=True)
            if iteration != _NEVER
        ]
        skipped = self.tolerant and bool(self.good_steps > 0)
        self.reset()
        if found and not skipped:
            iteration, name = min(found)
            raise NotFiniteError(
                f"iteration {iteration}: the loss term {name} is not finite: the training has diverged and ends here; "
                "what was saved before is kept. Lower the learning rate, or look for extreme intensities in the images."
            )
