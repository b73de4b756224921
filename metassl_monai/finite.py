# SPDX-License-Identifier: Apache-2.0
"""NaN and infinity, found before they are saved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["NotFiniteError", "first_not_finite", "refuse_not_finite"]


class NotFiniteError(ValueError):
    """A loss or a weight that is NaN or infinite: the training has diverged and cannot go on."""


def first_not_finite(state: Mapping[str, Any]) -> str | None:
    """Return the name of the first tensor that holds NaN or infinity, ``None`` where all are finite.

    The device is waited for once, not once a tensor.

    Args:
        state: tensors by name, such as a state dict; entries that are no tensors of floats are passed over.

    Example::

        >>> import torch
        >>> first_not_finite({"weight": torch.ones(2), "bias": torch.tensor([0.0, float("nan")])})
        'bias'
    """
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor) and value.is_floating_point()}
    if not tensors:
        return None
    device = next(iter(tensors.values())).device
    finite = torch.stack([torch.isfinite(value).all().to(device) for value in tensors.values()]).tolist()
    return next((name for name, good in zip(tensors, finite, strict=True) if not good), None)


def refuse_not_finite(state: Mapping[str, Any], where: str) -> None:
    """Stop if a tensor holds NaN or infinity.

    Args:
        state: tensors by name, such as a state dict.
        where: how the message begins, such as the iteration.

    Raises:
        NotFiniteError: with the name of the tensor and what may be done.
    """
    name = first_not_finite(state)
    if name is not None:
        raise NotFiniteError(
            f"{where}: the network's weights are not finite ({name}): the training has diverged and ends here; what "
            "was saved before is kept. Lower the learning rate, or look for extreme intensities in the images."
        )
