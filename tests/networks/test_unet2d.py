# SPDX-License-Identifier: Apache-2.0
"""The 2D U-Net against MONAI's own blocks, put together as the papers' network."""

from __future__ import annotations

import itertools

import pytest
import torch
from monai.networks.nets.basic_unet import Down, TwoConv, UpCat
from torch import Tensor, nn

from metassl_monai.networks import UNet2D

FEATURES = (16, 32, 64, 128, 256)
TINY = (4, 8, 16, 32, 64)
RATES = (0.05, 0.1, 0.2, 0.3, 0.5)


class FromMonai(nn.Module):
    """The same network from ``TwoConv``, ``Down`` and ``UpCat``."""

    def __init__(self, in_channels: int, out_channels: int, features: tuple[int, ...]) -> None:
        super().__init__()
        style = {"act": ("leakyrelu", {"negative_slope": 0.01}), "norm": "batch", "bias": True}
        self.first = TwoConv(2, in_channels, features[0], **style)
        self.down = nn.ModuleList(Down(2, shallow, deep, **style) for shallow, deep in itertools.pairwise(features))
        self.up = nn.ModuleList(
            UpCat(2, deep, shallow, shallow, upsample="nontrainable", halves=True, **style)
            for deep, shallow in zip(features[:0:-1], features[-2::-1], strict=True)
        )
        self.head = nn.Conv2d(features[0], out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        skips = [self.first(x)]
        for down in self.down:
            skips.append(down(skips[-1]))
        x = skips.pop()
        for up in self.up:
            x = up(x, skips.pop())
        return self.head(x)

    def copy_from(self, network: UNet2D) -> None:
        """Take over weights and statistics in order."""
        theirs = [self.first, *self.down, *(part for up in self.up for part in (up.upsample, up.convs)), self.head]
        stages = zip(network.decoder.upsample, network.decoder.blocks, strict=True)
        ours = [*network.encoder.blocks, *(part for stage in stages for part in stage), network.decoder.head]
        for target, source in zip(theirs, ours, strict=True):
            values = zip(target.state_dict().values(), source.state_dict().values(), strict=True)
            for old, new in values:
                assert old.shape == new.shape
                old.copy_(new)


def randomize(network: nn.Module) -> None:
    """Random values everywhere, batch norm included, so that no part is the identity."""
    torch.manual_seed(0)
    with torch.no_grad():
        for value in (*network.parameters(), *network.buffers()):
            if value.is_floating_point():
                value.copy_(torch.rand_like(value) * 0.2 + 0.05 * torch.randn_like(value).abs())


@pytest.mark.parametrize(("in_channels", "out_channels", "parameters"), [(1, 4, 1_813_764), (3, 2, 1_813_762)])
def test_number_of_parameters_is_that_of_the_papers(in_channels: int, out_channels: int, parameters: int) -> None:
    network = UNet2D(in_channels, out_channels)
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert all(p.requires_grad for p in network.parameters())


def test_defaults_are_one_channel_and_four_classes() -> None:
    assert UNet2D()(torch.zeros(2, 1, 32, 48)).shape == (2, 4, 32, 48)


@pytest.mark.parametrize(("in_channels", "out_channels", "features"), [(1, 4, FEATURES), (3, 2, TINY), (1, 2, (2, 4))])
def test_output_equals_that_of_monai_blocks(in_channels: int, out_channels: int, features: tuple[int, ...]) -> None:
    network = UNet2D(in_channels, out_channels, features, dropout=[0.5] * len(features)).eval()
    randomize(network)
    reference = FromMonai(in_channels, out_channels, features).eval().to(memory_format=torch.channels_last)
    reference.copy_from(network)
    images = torch.randn(2, in_channels, 32, 48)
    with torch.no_grad():
        output, expected = network(images), reference(images)
    assert output.std() > 0
    assert output.equal(expected)


def test_training_without_dropout_equals_that_of_monai_blocks() -> None:
    network = UNet2D(1, 4, TINY, dropout=(0.0,) * 5).train()
    randomize(network)
    reference = FromMonai(1, 4, TINY).train().to(memory_format=torch.channels_last)
    reference.copy_from(network)
    images = torch.randn(2, 1, 32, 32)
    output, expected = network(images), reference(images)
    assert output.equal(expected)
    output.square().mean().backward()
    expected.square().mean().backward()
    assert network.encoder.blocks[0][0].conv.weight.grad.equal(reference.first.conv_0.conv.weight.grad)


def rates(module: nn.Module) -> list[float]:
    return [part.p for part in module.modules() if isinstance(part, nn.modules.dropout._DropoutNd) and part.p > 0]


def test_dropout_comes_once_a_level_of_the_encoder_and_nowhere_else() -> None:
    network = UNet2D(1, 4, TINY)
    assert [rates(first) for first, _ in network.encoder.blocks] == [[rate] for rate in RATES]
    assert all(rates(second) == [] for _, second in network.encoder.blocks)
    assert rates(network.decoder) == []
    assert len(rates(network)) == 5


def test_dropout_follows_convolution_norm_and_activation() -> None:
    order = [type(part) for part in UNet2D(1, 4, TINY).encoder.blocks[2][0].modules() if not list(part.children())]
    assert order == [nn.Conv2d, nn.BatchNorm2d, nn.LeakyReLU, nn.Dropout]


@pytest.mark.parametrize("level", range(5))
def test_dropout_of_every_level_acts_in_training_alone(level: int) -> None:
    network = UNet2D(1, 4, TINY, dropout=[0.5 * (i == level) for i in range(5)])
    images = torch.randn(2, 1, 32, 32)
    assert network(images).ne(network(images)).any()
    network.eval()
    assert network(images).equal(network(images))


def test_activation_is_leaky_with_slope_one_hundredth() -> None:
    slopes = {part.negative_slope for part in UNet2D(1, 4, TINY).modules() if isinstance(part, nn.LeakyReLU)}
    assert slopes == {0.01}


def test_scripted_network_gives_the_same_output() -> None:
    network = UNet2D(1, 4, TINY).eval()
    images = torch.randn(2, 1, 32, 32)
    assert torch.jit.script(network)(images).equal(network(images))


@pytest.mark.parametrize("size", [(32, 40), (40, 32), (24, 24), (8, 16)])
def test_image_whose_sides_do_not_divide_is_refused_with_the_divisor(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"multiples of 16.*resize or pad"):
        UNet2D(1, 4, TINY)(torch.zeros(1, 1, *size))


def test_divisor_follows_the_number_of_levels() -> None:
    network = UNet2D(1, 4, (4, 8, 16), dropout=(0.1, 0.1, 0.1))
    assert network(torch.zeros(2, 1, 12, 20)).shape == (2, 4, 12, 20)
    with pytest.raises(ValueError, match="multiples of 4:"):
        network(torch.zeros(1, 1, 12, 18))


def test_one_dropout_rate_a_level_is_asked_for() -> None:
    with pytest.raises(ValueError, match="features has 3 levels and dropout 5"):
        UNet2D(features=(4, 8, 16))
