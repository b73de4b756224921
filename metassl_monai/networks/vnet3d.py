# SPDX-License-Identifier: Apache-2.0
"""The plain V-Net of the semi-supervised literature."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal, TypeAlias, get_args

import torch
from monai.networks.blocks import Convolution
from torch import Tensor, nn

from metassl_monai.options import check_option

from .sides import check_sides

__all__ = ["INITIAL_WEIGHTS", "InitialWeights", "VNet3D", "VNetDecoder", "VNetEncoder", "draw_weights"]

InitialWeights: TypeAlias = Literal["default", "kaiming"]
INITIAL_WEIGHTS = get_args(InitialWeights)

STYLE: dict[str, Any] = {"norm": "batch", "act": ("relu", {"inplace": True}), "adn_ordering": "NA"}
HALVE: dict[str, Any] = {"strides": 2, "kernel_size": 2, "padding": 0}


class VNetEncoder(nn.Module):
    """The contracting half of :class:`VNet3D`: stacks of convolutions, joined by strided ones that halve the sides.

    Args:
        in_channels: number of image channels.
        features: channels of each level, from full resolution down.
        dropout: rate at which whole channels of the deepest level are dropped.

    Raises:
        ValueError: when a side of the image is no multiple of ``2 ** (levels - 1)``.

    Example::

        >>> import torch
        >>> [tuple(x.shape) for x in VNetEncoder(1, (2, 4), dropout=0.5)(torch.zeros(1, 1, 8, 8, 4))]
        [(1, 2, 8, 8, 4), (1, 4, 4, 4, 2)]
    """

    def __init__(self, in_channels: int, features: Sequence[int], dropout: float) -> None:
        super().__init__()
        self.divisor = 2 ** (len(features) - 1)
        self.blocks = nn.ModuleList(
            _stack(in_channels if level == 0 else channels, channels, level) for level, channels in enumerate(features)
        )
        self.down = nn.ModuleList(
            Convolution(3, shallow, deep, **HALVE, **STYLE) for shallow, deep in pairwise(features)
        )
        self.dropout = nn.Dropout3d(dropout)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map images ``(B, in_channels, H, W, D)`` to the features of all levels, from full resolution down."""
        check_sides(x, self.divisor)
        levels: list[Tensor] = []
        for block, down in zip(self.blocks, self.down):  # noqa: B905 (one block more; TorchScript knows no strict)
            levels.append(block(x))
            x = down(levels[-1])
        levels.append(self.dropout(self.blocks[-1](x)))
        return levels


class VNetDecoder(nn.Module):
    """The expanding half of :class:`VNet3D`: transposed convolutions up, the encoder's features added, a 1x1x1 head.

    Args:
        out_channels: number of classes, background included.
        features: channels of each level, from full resolution down, as the encoder's.
        dropout: rate at which whole channels are dropped before the head.
        init: see :func:`draw_weights`. A fresh copy of the decoder starts in the same way.

    Example::

        >>> import torch
        >>> levels = [torch.zeros(1, 2, 8, 8, 4), torch.zeros(1, 4, 4, 4, 2)]
        >>> VNetDecoder(3, (2, 4), dropout=0.5)(levels).shape
        torch.Size([1, 3, 8, 8, 4])
    """

    def __init__(
        self, out_channels: int, features: Sequence[int], dropout: float, init: InitialWeights = "default"
    ) -> None:
        super().__init__()
        self.init = init
        levels = range(len(features) - 2, -1, -1)
        self.up = nn.ModuleList(
            Convolution(3, features[i + 1], features[i], is_transposed=True, output_padding=0, **HALVE, **STYLE)
            for i in levels
        )
        self.blocks = nn.ModuleList(_stack(features[i], features[i], i) for i in levels)
        self.dropout = nn.Dropout3d(dropout)
        self.head = nn.Conv3d(features[0], out_channels, kernel_size=1)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weights after those of the convolutions, which draw theirs by themselves."""
        draw_weights(self, self.init)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Map the encoder's features to logits ``(B, out_channels, H, W, D)``."""
        x = features[-1]
        for i, (up, block) in enumerate(zip(self.up, self.blocks)):  # noqa: B905 (TorchScript knows no strict)
            x = block(up(x) + features[-2 - i])
        logits: Tensor = self.head(self.dropout(x)).contiguous()  # channels first, as softmax and losses want them
        return logits


class VNet3D(nn.Module):
    """The V-Net on which the papers report their results on the left atrium, rebuilt from MONAI blocks.

    3x3x3 convolutions with batch norm and ReLU, one at full resolution, two a level below, three in all deeper levels;
    strided 2x2x2 convolutions down and transposed ones up; features of the encoder are *added*, nothing is residual
    within a level. Channels are dropped after the deepest level and before the head. 9,448,866 parameters for 1 -> 2
    channels. ``monai.networks.nets.VNet`` follows the original design, with 5x5x5 kernels, residuals and concatenation,
    and is five times as large. Weights are kept channels-last, in which its training is 1.1 times as fast on a CPU and
    2.8 times on a GPU with mixed precision.

    Source: the network of UA-MT (L. Yu et al., MICCAI 2019) and of BCP (Y. Bai et al., CVPR 2023), which start from
    PyTorch's weights, as CML and ALHVR do; MCF and DualNet start from Kaiming-normal ones.

    Args:
        in_channels: number of image channels.
        out_channels: number of classes, background included.
        features: channels of each level, from full resolution down.
        dropout: rate at which whole channels are dropped.
        init: the initial weights, see :func:`draw_weights`.

    Raises:
        ValueError: when ``init`` is unknown, or a side of the image is no multiple of ``2 ** (levels - 1)``.

    Example::

        >>> import torch
        >>> from metassl_monai.networks import VNet3D
        >>> VNet3D(in_channels=1, out_channels=2, features=(4, 8, 16))(torch.zeros(2, 1, 16, 16, 8)).shape
        torch.Size([2, 2, 16, 16, 8])
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 2,
        features: Sequence[int] = (16, 32, 64, 128, 256),
        dropout: float = 0.5,
        init: InitialWeights = "default",
    ) -> None:
        super().__init__()
        self.encoder = VNetEncoder(in_channels, features, dropout)
        self.decoder = VNetDecoder(out_channels, features, dropout, init)
        draw_weights(self.encoder, init)
        self.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``(B, in_channels, H, W, D)`` to logits ``(B, out_channels, H, W, D)``."""
        logits: Tensor = self.decoder(self.encoder(x))
        return logits


def _stack(in_channels: int, out_channels: int, level: int) -> nn.Sequential:
    inputs = [in_channels, *[out_channels] * min(level, 2)]
    return nn.Sequential(*(Convolution(3, channels, out_channels, **STYLE) for channels in inputs))


def draw_weights(module: nn.Module, init: InitialWeights) -> None:
    """Give the 3D convolutions of a module initial weights; biases stay as PyTorch draws them.

    Args:
        module: the module, whose convolutions have PyTorch's weights.
        init: ``"default"`` leaves them, of standard deviation ``0.58 / sqrt(fan_in)``; ``"kaiming"`` draws
            Kaiming-normal ones, ``1.41 / sqrt(fan_in)``.

    Raises:
        ValueError: when ``init`` is unknown.

    Example::

        >>> from torch import nn
        >>> convolution = nn.Conv3d(8, 8, 3)
        >>> draw_weights(convolution, "kaiming")
        >>> 1.3 < float(convolution.weight.std() * (8 * 27) ** 0.5) < 1.5
        True
    """
    check_option("init", init, INITIAL_WEIGHTS)
    if init == "kaiming":
        for part in module.modules():
            if isinstance(part, nn.Conv3d | nn.ConvTranspose3d):
                nn.init.kaiming_normal_(part.weight)
