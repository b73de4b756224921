# SPDX-License-Identifier: Apache-2.0
"""A 3D ResNet-34 as encoder before the decoder of the V-Net."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from monai.networks.blocks import Convolution
from monai.networks.nets.resnet import ResNetBlock
from torch import Tensor, nn

from .sides import check_sides
from .vnet3d import STYLE, InitialWeights, VNetDecoder, draw_weights

__all__ = ["ResNet34VNet3D", "ResNetEncoder"]


class ResNetEncoder(nn.Module):
    """The contracting half of :class:`ResNet34VNet3D`: a 7x7x7 convolution, then stages of residual blocks.

    The first block of each stage halves the sides. Nothing is pooled, so that there is a level at full resolution.

    Args:
        in_channels: number of image channels.
        features: channels of each level, from full resolution down.
        blocks: residual blocks of each level below the first, one fewer than ``features``.

    Raises:
        ValueError: when the lengths do not fit, or a side of the image is no multiple of ``2 ** (levels - 1)``.

    Example::

        >>> import torch
        >>> [tuple(x.shape) for x in ResNetEncoder(1, (2, 4), blocks=(1,))(torch.zeros(1, 1, 8, 8, 4))]
        [(1, 2, 8, 8, 4), (1, 4, 4, 4, 2)]
    """

    def __init__(self, in_channels: int, features: Sequence[int], blocks: Sequence[int]) -> None:
        super().__init__()
        if len(features) != len(blocks) + 1:
            raise ValueError(
                f"blocks has {len(blocks)} stages, expected {len(features) - 1}: one a level below the first."
            )
        self.divisor = 2 ** len(blocks)
        self.stem = Convolution(3, in_channels, features[0], kernel_size=7, bias=False, **STYLE)
        self.stages = nn.ModuleList(
            _stage(shallow, deep, number) for (shallow, deep), number in zip(pairwise(features), blocks, strict=True)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map images ``(B, in_channels, H, W, D)`` to the features of all levels, from full resolution down."""
        check_sides(x, self.divisor)
        levels: list[Tensor] = [self.stem(x)]
        for stage in self.stages:
            levels.append(stage(levels[-1]))
        return levels


class ResNet34VNet3D(nn.Module):
    """A 3D ResNet-34 with the decoder of :class:`VNet3D`: the second network of MCF and DualNet.

    3, 4, 6 and 3 residual blocks of two 3x3x3 convolutions below a 7x7x7 one at full resolution; features of the
    encoder are added in the decoder. 17,930,354 parameters for 1 -> 2 channels. ``FlexibleUNet`` of MONAI with a
    ResNet-34 has 70.6 million, and no encoder features at full resolution.

    Source: the ResNet of MCF (Y. Wang et al., CVPR 2023) and of Dual Networks (arXiv 2505.17690), which start from
    Kaiming-normal weights; SDCL (B. Song and Q. Wang, MICCAI 2024) starts a like one from PyTorch's.

    Args:
        in_channels: number of image channels.
        out_channels: number of classes, background included.
        features: channels of each level, from full resolution down.
        dropout: rate at which whole channels are dropped before the head.
        blocks: residual blocks of each level below the first.
        init: the initial weights, ``"default"`` (PyTorch's) or ``"kaiming"``, as in :class:`VNet3D`.

    Raises:
        ValueError: when the lengths do not fit, ``init`` is unknown, or a side of the image is no multiple of
            ``2 ** (levels - 1)``.

    Example::

        >>> import torch
        >>> from metassl_monai.networks import ResNet34VNet3D
        >>> network = ResNet34VNet3D(in_channels=1, out_channels=2, features=(2, 4, 6, 8, 10))
        >>> network(torch.zeros(2, 1, 16, 16, 32)).shape
        torch.Size([2, 2, 16, 16, 32])
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 2,
        features: Sequence[int] = (16, 32, 64, 128, 256),
        dropout: float = 0.5,
        blocks: Sequence[int] = (3, 4, 6, 3),
        init: InitialWeights = "default",
    ) -> None:
        super().__init__()
        self.encoder = ResNetEncoder(in_channels, features, blocks)
        self.decoder = VNetDecoder(out_channels, features, dropout, init)
        draw_weights(self.encoder, init)

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``(B, in_channels, H, W, D)`` to logits ``(B, out_channels, H, W, D)``."""
        logits: Tensor = self.decoder(self.encoder(x))
        return logits


def _stage(in_channels: int, out_channels: int, number: int) -> nn.Sequential:
    shortcut = Convolution(3, in_channels, out_channels, strides=2, kernel_size=1, bias=False, norm="batch", act=None)
    first = ResNetBlock(in_channels, out_channels, stride=2, downsample=shortcut)
    return nn.Sequential(first, *(ResNetBlock(out_channels, out_channels) for _ in range(number - 1)))
