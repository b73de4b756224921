# SPDX-License-Identifier: Apache-2.0
"""What encoders that halve images demand of their sides."""

from __future__ import annotations

from torch import Tensor

__all__ = ["check_sides"]


def check_sides(images: Tensor, divisor: int) -> None:
    """Raise ValueError unless all sides of images, ``(B, channels, *spatial)``, are multiples of ``divisor``."""
    for side in images.shape[2:]:
        if side % divisor != 0:
            raise ValueError(f"image sides must be multiples of {divisor}: resize or pad the images first.")
