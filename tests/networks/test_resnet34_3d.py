# SPDX-License-Identifier: Apache-2.0
"""The 3D ResNet-34 with the V-Net's decoder, against a second implementation of its encoder in plain torch."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metassl_monai.networks import ResNet34VNet3D, VNet3D

TINY = (2, 4, 6, 8, 10)


@pytest.fixture
def tiny() -> ResNet34VNet3D:
    torch.manual_seed(0)
    network = ResNet34VNet3D(1, 2, TINY)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):  # so that no part is the identity
            for value in (module.weight.data, module.bias.data, module.running_mean, module.running_var):
                value.copy_(torch.rand_like(value) + 0.5)
    return network.eval()


class Weights:
    """The values of a state dict in the order in which plain layers take them."""

    def __init__(self, module: nn.Module) -> None:
        self.layers = [part for part in module.modules() if isinstance(part, nn.Conv3d | nn.BatchNorm3d)]

    def convolution(self, x: Tensor, stride: int = 1) -> Tensor:
        layer = self.layers.pop(0)
        assert layer.bias is None
        return F.conv3d(x, layer.weight, stride=stride, padding=layer.weight.shape[-1] // 2)

    def norm(self, x: Tensor) -> Tensor:
        layer = self.layers.pop(0)
        return F.batch_norm(x, layer.running_mean, layer.running_var, layer.weight, layer.bias)


def plain_block(weights: Weights, x: Tensor, first: bool) -> Tensor:
    y = weights.norm(weights.convolution(x, stride=2 if first else 1)).relu()
    y = weights.norm(weights.convolution(y))
    shortcut = weights.norm(weights.convolution(x, stride=2)) if first else x
    return (y + shortcut).relu()


def plain_encoder(network: ResNet34VNet3D, x: Tensor) -> list[Tensor]:
    weights = Weights(network.encoder)
    levels = [weights.norm(weights.convolution(x)).relu()]
    for blocks in (3, 4, 6, 3):
        x = levels[-1]
        for i in range(blocks):
            x = plain_block(weights, x, first=i == 0)
        levels.append(x)
    assert not weights.layers
    return levels


def test_number_of_parameters_is_that_of_the_paper() -> None:
    network = ResNet34VNet3D()
    count = sum(p.numel() for p in network.parameters())
    assert count == 17_930_354
    assert round(count / 1e6, 2) == 17.93
    assert all(p.requires_grad for p in network.parameters())
    kernels = [tuple(part.kernel_size) for part in network.encoder.modules() if isinstance(part, nn.Conv3d)]
    assert len([kernel for kernel in kernels if kernel != (1, 1, 1)]) == 33  # and the head makes 34


def test_encoder_equals_a_plain_one(tiny: ResNet34VNet3D) -> None:
    images = torch.randn(2, 1, 32, 16, 48)
    with torch.no_grad():
        levels, expected = tiny.encoder(images), plain_encoder(tiny, images)
    assert [tuple(x.shape[1:]) for x in levels] == [(c, 32 >> i, 16 >> i, 48 >> i) for i, c in enumerate(TINY)]
    for level, other in zip(levels, expected, strict=True):
        assert level.std() > 0
        torch.testing.assert_close(level, other)


def test_decoder_is_that_of_the_v_net(tiny: ResNet34VNet3D) -> None:
    assert tiny.decoder.state_dict().keys() == VNet3D(1, 2, TINY).decoder.state_dict().keys()
    images = torch.randn(1, 1, 16, 16, 32)
    assert tiny.decoder(tiny.encoder(images)).equal(tiny(images))
    last: list[Tensor] = []
    tiny.get_submodule("decoder.blocks.3").register_forward_hook(lambda module, inputs, output: last.append(output))
    assert tiny(images).shape == (1, 2, 16, 16, 32)
    assert last[0].shape == (1, TINY[0], 16, 16, 32)


@pytest.mark.parametrize(("in_channels", "out_channels"), [(1, 2), (3, 5)])
def test_shapes(in_channels: int, out_channels: int) -> None:
    network = ResNet34VNet3D(in_channels, out_channels, TINY)
    assert network(torch.randn(2, in_channels, 16, 32, 32)).shape == (2, out_channels, 16, 32, 32)


def test_channels_are_dropped_before_the_head_in_training_alone(tiny: ResNet34VNet3D) -> None:
    images = torch.randn(2, 1, 32, 32, 16)
    assert tiny(images).equal(tiny(images))
    tiny.train()
    assert tiny(images).ne(tiny(images)).any()
    tiny.decoder.dropout.p = 0.0
    assert tiny(images).equal(tiny(images))


def test_scripted_network_gives_the_same_output(tiny: ResNet34VNet3D) -> None:
    images = torch.randn(1, 1, 16, 16, 32)
    assert torch.jit.script(tiny)(images).equal(tiny(images))


def test_compiled_network_gives_the_same_output(tiny: ResNet34VNet3D) -> None:
    images = torch.randn(1, 1, 16, 16, 16)
    compiled = torch.compile(tiny, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(images), tiny(images))


def test_copy_is_independent(tiny: ResNet34VNet3D) -> None:
    images = torch.randn(1, 1, 16, 16, 16)
    twin = copy.deepcopy(tiny)
    before = tiny(images)
    nn.init.zeros_(tiny.encoder.stem.conv.weight)
    assert twin(images).equal(before)
    assert tiny(images).ne(before).any()


@pytest.mark.parametrize("size", [(32, 16, 40), (40, 16, 32), (16, 24, 16), (8, 16, 16)])
def test_image_whose_sides_do_not_divide_by_16_is_refused(tiny: ResNet34VNet3D, size: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"multiples of 16.*resize or pad"):
        tiny(torch.zeros(1, 1, *size))


def test_blocks_that_do_not_fit_the_levels_are_refused() -> None:
    with pytest.raises(ValueError, match="blocks has 4 stages, expected 2"):
        ResNet34VNet3D(1, 2, (2, 4, 8))
    network = ResNet34VNet3D(1, 2, (2, 4, 8), blocks=(1, 1))
    assert network(torch.zeros(2, 1, 12, 20, 8)).shape == (2, 2, 12, 20, 8)
