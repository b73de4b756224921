# SPDX-License-Identifier: Apache-2.0
"""The V-Net against a second implementation of it in plain torch."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from monai.bundle import ckpt_export
from monai.bundle.config_parser import ConfigParser
from monai.networks.nets import VNet
from torch import Tensor, nn

from metassl_monai.networks import VNet3D

FEATURES = (16, 32, 64, 128, 256)
TINY = (2, 4, 6, 8, 10)
DEPTHS = (1, 2, 3, 3, 3)


class PlainVNet(nn.Module):
    """The same network, level by level, with every layer spelled out."""

    def __init__(self, in_channels: int, out_channels: int, features: tuple[int, ...]) -> None:
        super().__init__()
        self.contracting = nn.ModuleList()
        self.halving = nn.ModuleList()
        self.doubling = nn.ModuleList()
        self.expanding = nn.ModuleList()
        for level, (width, depth) in enumerate(zip(features, DEPTHS, strict=True)):
            self.contracting.append(self.stack(width if level else in_channels, width, depth))
        for width, deeper in itertools.pairwise(features):
            self.halving.append(self.layer(nn.Conv3d(width, deeper, 2, stride=2), deeper))
            self.doubling.append(self.layer(nn.ConvTranspose3d(deeper, width, 2, stride=2), width))
        for width, depth in zip(features[:-1], DEPTHS[:-1], strict=True):
            self.expanding.append(self.stack(width, width, depth))
        self.head = nn.Conv3d(features[0], out_channels, 1)

    @staticmethod
    def layer(convolution: nn.Module, width: int) -> nn.Sequential:
        return nn.Sequential(convolution, nn.BatchNorm3d(width), nn.ReLU())

    def stack(self, inputs: int, width: int, depth: int) -> nn.Sequential:
        layers = [nn.Conv3d(width if i else inputs, width, 3, padding=1) for i in range(depth)]
        return nn.Sequential(*(self.layer(layer, width) for layer in layers))

    def forward(self, x: Tensor) -> Tensor:
        x1 = self.contracting[0](x)
        x2 = self.contracting[1](self.halving[0](x1))
        x3 = self.contracting[2](self.halving[1](x2))
        x4 = self.contracting[3](self.halving[2](x3))
        x5 = self.contracting[4](self.halving[3](x4))
        x6 = self.expanding[3](self.doubling[3](x5) + x4)
        x7 = self.expanding[2](self.doubling[2](x6) + x3)
        x8 = self.expanding[1](self.doubling[1](x7) + x2)
        return self.head(self.expanding[0](self.doubling[0](x8) + x1))

    def copy_from(self, network: VNet3D) -> None:
        """Take over weights and statistics, part by part."""
        encoder, decoder = network.encoder, network.decoder
        theirs = [*self.contracting, *self.halving, *reversed(self.doubling), *reversed(self.expanding), self.head]
        ours = [*encoder.blocks, *encoder.down, *decoder.up, *decoder.blocks, decoder.head]
        for target, source in zip(theirs, ours, strict=True):
            values = zip(target.state_dict().values(), source.state_dict().values(), strict=True)
            for old, new in values:
                assert old.shape == new.shape
                old.copy_(new)


def randomize(network: nn.Module) -> None:
    """Random values in batch norm too, so that no part is the identity."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):
            for value in (module.weight.data, module.bias.data, module.running_mean, module.running_var):
                value.copy_(torch.rand_like(value) + 0.5)


@pytest.fixture
def tiny() -> VNet3D:
    torch.manual_seed(0)
    return VNet3D(1, 2, TINY)


def test_number_of_parameters_is_that_of_the_papers() -> None:
    network = VNet3D()
    assert sum(p.numel() for p in network.parameters()) == 9_448_866
    assert all(p.requires_grad for p in network.parameters())
    assert sum(p.numel() for p in VNet(in_channels=1, out_channels=2).parameters()) > 4 * 9_448_866


@pytest.mark.parametrize(("in_channels", "out_channels", "features"), [(1, 2, TINY), (3, 4, TINY), (1, 2, FEATURES)])
def test_output_equals_that_of_a_plain_network(in_channels: int, out_channels: int, features: tuple[int, ...]) -> None:
    network = VNet3D(in_channels, out_channels, features).eval()
    randomize(network)
    reference = PlainVNet(in_channels, out_channels, features).eval().to(memory_format=torch.channels_last_3d)
    reference.copy_from(network)
    images = torch.randn(2, in_channels, 16, 32, 16)
    with torch.no_grad():
        output, expected = network(images), reference(images)
    assert output.shape == (2, out_channels, 16, 32, 16)
    assert output.std() > 0
    assert output.equal(expected)


def test_training_without_dropout_equals_that_of_a_plain_network() -> None:
    network = VNet3D(1, 2, TINY, dropout=0.0).double().train()
    reference = PlainVNet(1, 2, TINY).double().train()
    reference.copy_from(network)
    images = torch.randn(2, 1, 32, 16, 32, dtype=torch.float64)
    for model in (network, reference):
        model(images).square().mean().backward()
    gradient = network.encoder.blocks[0][0].conv.weight.grad
    assert gradient.abs().max() > 0
    torch.testing.assert_close(gradient, reference.contracting[0][0][0].weight.grad)


def test_encoder_gives_the_features_of_every_level(tiny: VNet3D) -> None:
    images = torch.randn(1, 1, 32, 16, 48)
    levels = tiny.eval().encoder(images)
    assert [x.shape[1] for x in levels] == list(TINY)
    assert [tuple(x.shape[2:]) for x in levels] == [(32 >> i, 16 >> i, 48 >> i) for i in range(5)]
    assert tiny.decoder(levels).equal(tiny(images))


def test_dropout_is_after_the_deepest_level_and_before_the_head(tiny: VNet3D) -> None:
    names = [name for name, part in tiny.named_modules() if isinstance(part, nn.modules.dropout._DropoutNd)]
    assert names == ["encoder.dropout", "decoder.dropout"]
    assert all(
        isinstance(half.dropout, nn.Dropout3d) and half.dropout.p == 0.5 for half in (tiny.encoder, tiny.decoder)
    )
    inputs: dict[str, Tensor] = {}
    tiny.decoder.dropout.register_forward_hook(lambda module, args, output: inputs.update(before=args[0], after=output))
    tiny.decoder.head.register_forward_hook(lambda module, args, output: inputs.update(head=args[0]))
    deepest = tiny.encoder(torch.randn(4, 1, 32, 32, 32))[-1].flatten(2)
    assert deepest.eq(0).all(-1).any()
    tiny(torch.randn(1, 1, 32, 32, 32))
    assert inputs["head"] is inputs["after"]
    assert inputs["before"].shape[1] == TINY[0]


@pytest.mark.parametrize("half", ["encoder", "decoder"])
def test_each_dropout_acts_in_training_alone(tiny: VNet3D, half: str) -> None:
    images = torch.randn(2, 1, 32, 32, 16)
    for name in ("encoder", "decoder"):
        getattr(tiny, name).dropout.p = 0.5 * (name == half)
    assert tiny(images).ne(tiny(images)).any()
    tiny.eval()
    assert tiny(images).equal(tiny(images))


def test_kaiming_weights_are_normal() -> None:
    torch.manual_seed(0)
    weight = VNet3D(init="kaiming").encoder.blocks[3][1].conv.weight
    assert weight.std().item() == pytest.approx((2 / (128 * 27)) ** 0.5, rel=0.01)
    assert (weight.abs() > 2 * weight.std()).float().mean().item() == pytest.approx(0.0455, abs=0.002)


def test_scripted_network_gives_the_same_output(tiny: VNet3D) -> None:
    images = torch.randn(1, 1, 16, 16, 32)
    tiny.eval()
    assert torch.jit.script(tiny)(images).equal(tiny(images))


def test_bundle_with_the_network_can_be_exported(tiny: VNet3D, tmp_path) -> None:
    torch.save(tiny.state_dict(), tmp_path / "model.pt")
    network = {"_target_": "metassl_monai.networks.VNet3D", "features": list(TINY)}
    ConfigParser.export_config_file({"network_def": network}, str(tmp_path / "inference.json"))
    (tmp_path / "metadata.json").write_text("{}")
    ckpt_export(
        net_id="network_def",
        filepath=str(tmp_path / "model.ts"),
        ckpt_file=str(tmp_path / "model.pt"),
        meta_file=str(tmp_path / "metadata.json"),
        config_file=str(tmp_path / "inference.json"),
    )
    images = torch.randn(1, 1, 16, 16, 16)
    assert torch.jit.load(str(tmp_path / "model.ts")).eval()(images).equal(tiny.eval()(images))


def test_copy_is_independent(tiny: VNet3D) -> None:
    images = torch.randn(1, 1, 16, 16, 16)
    twin = copy.deepcopy(tiny.eval())
    before = twin(images)
    assert before.equal(tiny(images))
    nn.init.zeros_(tiny.decoder.head.weight)
    assert twin(images).equal(before)


def test_compiled_network_gives_the_same_output(tiny: VNet3D) -> None:
    images = torch.randn(1, 1, 16, 16, 16)
    compiled = torch.compile(tiny.eval(), backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(images), tiny(images))


@pytest.mark.parametrize("size", [(32, 16, 40), (40, 16, 32), (16, 24, 16), (8, 16, 16)])
def test_image_whose_sides_do_not_divide_is_refused_with_the_divisor(tiny: VNet3D, size: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"multiples of 16.*resize or pad"):
        tiny(torch.zeros(1, 1, *size))


def test_divisor_follows_the_number_of_levels() -> None:
    network = VNet3D(1, 2, (2, 4, 8))
    assert network(torch.zeros(1, 1, 12, 20, 8)).shape == (1, 2, 12, 20, 8)
    with pytest.raises(ValueError, match="multiples of 4:"):
        network(torch.zeros(1, 1, 12, 18, 8))
