# SPDX-License-Identifier: Apache-2.0
"""Networks of the literature that MONAI does not have."""

from __future__ import annotations

from .second_decoder import SecondDecoder
from .unet2d import UNet2D
from .vnet3d import VNet3D

__all__ = ["SecondDecoder", "UNet2D", "VNet3D"]
