# SPDX-License-Identifier: Apache-2.0
"""From which weights the 3D networks start, and that every second decoder starts like the first one."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from metassl_monai.losses import CrossEntropyDiceLoss, PseudoLabelLoss
from metassl_monai.methods import (
    CrossConsistencyTraining,
    DecoupledConsistency,
    Method,
    MutualConsistency,
    ReliableMutualLearning,
)
from metassl_monai.networks import ResNet34VNet3D, SecondDecoder, UNet2D, VNet3D
from metassl_monai.networks.copies import fresh_copy

SPREAD = {"default": 3**-0.5, "kaiming": 2**0.5}
"""Standard deviation of a weight times the root of its fan-in: uniform in +-1/sqrt(fan_in), and Kaiming-normal."""
NETWORKS = {
    "vnet": lambda: VNet3D(),
    "vnet-default": lambda: VNet3D(init="default"),
    "vnet-kaiming": lambda: VNet3D(init="kaiming"),
    "resnet": lambda: ResNet34VNet3D(),
    "resnet-kaiming": lambda: ResNet34VNet3D(init="kaiming"),
}


def convolutions(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for name, part in network.named_modules():
        if isinstance(part, nn.Conv2d | nn.Conv3d | nn.ConvTranspose3d):
            yield name, part.weight.detach()


def spread(weight: Tensor) -> float:
    return float(weight.std()) * (weight.shape[1] * weight[0, 0].numel()) ** 0.5


def tolerance(weight: Tensor) -> float:
    """Five standard errors of the spread of so many normal values."""
    return 5 / (2 * weight.numel()) ** 0.5


@pytest.mark.parametrize("kind", NETWORKS)
def test_every_convolution_starts_with_the_spread_of_its_kind(kind: str) -> None:
    torch.manual_seed(0)
    network = NETWORKS[kind]()
    weights = dict(convolutions(network))
    assert len(weights) == (30 if kind.startswith("vnet") else 51)
    expected = SPREAD[kind.rpartition("-")[2] if "-" in kind else "default"]
    for name, weight in weights.items():
        assert spread(weight) == pytest.approx(expected, rel=tolerance(weight)), name
    assert all(part.weight.eq(1).all() for part in network.modules() if isinstance(part, nn.BatchNorm3d))


@pytest.mark.parametrize("network", [VNet3D, ResNet34VNet3D])
def test_unknown_initial_weights_are_refused_with_the_known_ones(network: type[nn.Module]) -> None:
    with pytest.raises(ValueError, match=r"init='xavier'.*default.*kaiming"):
        network(init="xavier")


def decoder_of(kind: type[Method], further: dict) -> Callable[[nn.Module], list[nn.Module]]:
    def made(network: nn.Module) -> list[nn.Module]:
        method = kind(network, CrossEntropyDiceLoss(), PseudoLabelLoss(), lambda step: 1.0, **further)
        decoders = getattr(method, "decoders", None)
        return [method.second_decoder] if decoders is None else list(decoders.values())

    return made


COPIES = {
    "fresh_copy": lambda network: [fresh_copy(network.decoder)],
    "SecondDecoder": lambda network: [SecondDecoder(network).decoder],
    "CCT": decoder_of(CrossConsistencyTraining, {}),
    "MC-Net": decoder_of(MutualConsistency, {}),
    "DC-Net": decoder_of(DecoupledConsistency, {"num_classes": 2, "iterations": 10}),
    "MLRP": decoder_of(ReliableMutualLearning, {"tap": "blocks.3"}),
}


@pytest.mark.parametrize("init", SPREAD)
@pytest.mark.parametrize("kind", COPIES)
def test_copies_of_a_decoder_start_like_the_main_one_from_weights_of_their_own(kind: str, init: str) -> None:
    torch.manual_seed(0)
    network = VNet3D(1, 2, init=init)
    main = dict(convolutions(network.decoder))
    decoders = COPIES[kind](network)
    for decoder in decoders:
        copied = dict(convolutions(decoder))
        assert copied.keys() == main.keys()
        for name, weight in copied.items():
            # both are drawn, hence twice the variance of the comparison with a known spread
            assert spread(weight) == pytest.approx(spread(main[name]), rel=2 * tolerance(weight)), name
            assert weight.ne(main[name]).float().mean() > 0.99, name
    assert len(decoders) == (3 if kind == "CCT" else 1)


def test_a_copy_of_a_2d_decoder_keeps_the_spread_of_its_convolutions() -> None:
    torch.manual_seed(0)
    network = UNet2D()
    for name, weight in convolutions(fresh_copy(network.decoder)):
        assert spread(weight) == pytest.approx(SPREAD["default"], rel=tolerance(weight)), name
