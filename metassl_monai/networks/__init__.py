# SPDX-License-Identifier: Apache-2.0
"""Networks of the literature that MONAI does not have."""

from __future__ import annotations

from .encoder_taps import encoder_taps
from .features import Features
from .mean_of_two import MeanOfTwo
from .resnet34_3d import ResNet34VNet3D
from .second_decoder import SecondDecoder
from .unet2d import UNet2D
from .vnet3d import VNet3D

__all__ = ["Features", "MeanOfTwo", "ResNet34VNet3D", "SecondDecoder", "UNet2D", "VNet3D", "encoder_taps"]
