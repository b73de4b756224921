# SPDX-License-Identifier: Apache-2.0
"""Networks of the literature that MONAI does not have."""

from __future__ import annotations

from .unet2d import UNet2D

__all__ = ["UNet2D"]
