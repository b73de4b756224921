# SPDX-License-Identifier: Apache-2.0
"""Mixtures of the two halves of a batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.data.utils import get_random_patch
from monai.transforms import Randomizable
from monai.utils.misc import get_seed
from torch import Tensor

from metassl_monai.transforms.boxes import box_masks

__all__ = ["HalfMix"]


class HalfMix(Randomizable):
    """Show the second half of a batch in a box, and the first half around it (CML, Eq. 5, 6, 8 and 9).

    One box of a fixed size, at a uniform place, serves all mixtures of a draw. The last sample of an odd batch is
    mixed with the first one, so that every sample takes part.

    Args:
        box_fraction: side of the box as a fraction of each side of the image, in (0, 1], rounded down to voxels.

    Attributes:
        mask: True in the box of the last draw, ``(1, 1, *spatial)``, bool.

    Raises:
        ValueError: when ``box_fraction`` is out of range.

    Example::

        >>> import torch
        >>> from metassl_monai.methods.half_mix import HalfMix
        >>> mix = HalfMix(box_fraction=0.5)
        >>> image = torch.tensor([0.0, 0.0, 1.0, 1.0]).view(4, 1, 1, 1).expand(4, 1, 4, 4)
        >>> mix(image, image).sum(dim=(1, 2, 3))
        tensor([4., 4.])
        >>> own = torch.full((4, 1, 4, 4), 2.0)
        >>> bool((mix(image, own, randomize=False) == 2 * mix.mask).all())  # another array for the box
        True
    """

    def __init__(self, box_fraction: float) -> None:
        if not 0 < box_fraction <= 1:
            raise ValueError(f"box_fraction={box_fraction} is not in (0, 1].")
        self.box_fraction = box_fraction
        self.mask = torch.zeros(0, dtype=torch.bool)
        if get_seed() is not None:
            self.set_random_state(seed=get_seed())

    def randomize(self, spatial_shape: Sequence[int], device: torch.device | str | None = None) -> None:
        """Draw the place of the box and make its mask, on ``device``."""
        sides = [max(1, int(self.box_fraction * size)) for size in spatial_shape]
        self.mask = box_masks([get_random_patch(spatial_shape, sides, self.R)], spatial_shape, device)

    def __call__(self, outside: Tensor, inside: Tensor, randomize: bool = True) -> Tensor:
        """Mix the first half of ``outside`` with the second half of ``inside``.

        Args:
            outside: what is seen around the box, ``(B, C, *spatial)``: images, labels, logits.
            inside: what is seen in the box, same shape; often the same array.
            randomize: draw anew; False repeats the last draw, for the other arrays of a batch.

        Returns:
            The mixtures, ``((B + 1) // 2, C, *spatial)``. Number ``i`` is of the samples ``i`` and
            ``(B + 1) // 2 + i``, counted around.
        """
        if randomize:
            self.randomize(outside.shape[2:], outside.device)
        half = (len(outside) + 1) // 2
        return torch.where(self.mask, inside.roll(-half, dims=0)[:half], outside[:half])
