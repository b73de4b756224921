# SPDX-License-Identifier: Apache-2.0
"""Features of any network: read, replaced and decoded again."""

from __future__ import annotations

import copy
import importlib.util
import io
import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist
from monai.networks.nets import UNETR, BasicUNet, DynUNet, SegResNet, SwinUNETR, UNet, VNet
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from metassl_monai.networks import Features, UNet2D, VNet3D, encoder_taps

NETWORKS: dict[str, tuple[Callable[[], nn.Module], int, tuple[int, ...], str]] = {
    # builder, number of levels, shape of an image, a submodule of the decoder
    "UNet2D": (lambda: UNet2D(1, 3, (4, 6, 8), (0.0, 0.0, 0.0)), 3, (1, 16, 16), "decoder.blocks.0"),
    "VNet3D": (lambda: VNet3D(1, 3, (2, 4, 8), dropout=0.0), 3, (1, 8, 8, 4), "decoder.blocks.0"),
    "BasicUNet": (lambda: BasicUNet(2, 1, 3, (4, 4, 6, 8, 8, 4), norm="batch"), 5, (1, 32, 32), "upcat_1"),
    "UNet": (lambda: UNet(2, 1, 3, (4, 6, 8), (2, 2), norm="batch"), 3, (1, 16, 16), "model.1"),
    "UNet, residual": (lambda: UNet(2, 1, 3, (4, 6, 8, 8), (2, 2, 2), num_res_units=2), 4, (1, 16, 16), "model.1"),
    "UNet, two levels": (lambda: UNet(3, 1, 3, (4, 6), (2,)), 2, (1, 8, 8, 4), "model.1"),
    "VNet": (lambda: VNet(2, 1, 3), 5, (1, 32, 32), "up_tr256"),
    "SegResNet": (lambda: SegResNet(2, 4, 1, 3, norm="batch"), 4, (1, 16, 16), "up_layers.2"),
    "DynUNet": (
        lambda: DynUNet(2, 1, 3, [3, 3, 3], [1, 2, 2], [2, 2], filters=[4, 6, 8], norm_name="batch"),
        3,
        (1, 16, 16),
        "upsamples.1",
    ),
    "UNETR": (lambda: UNETR(1, 3, (32, 32), 4, 12, 24, 2, spatial_dims=2), 5, (1, 32, 32), "decoder2"),
    "SwinUNETR": (lambda: SwinUNETR(1, 3, feature_size=12, spatial_dims=2), 6, (1, 64, 64), "decoder1"),
}
WITHOUT_HALVES = [name for name in NETWORKS if name not in ("UNet2D", "VNet3D")]


def build(name: str, training: bool = False, taps: bool = True) -> tuple[Features, Tensor]:
    if name in ("UNETR", "SwinUNETR") and importlib.util.find_spec("einops") is None:
        pytest.skip("needs einops")
    make, _, shape, tap = NETWORKS[name]
    torch.manual_seed(0)
    network = make().train(training)
    return Features(network, [tap] if taps else []), torch.randn(2, *shape)


def tensors(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in state.items()}


@pytest.mark.parametrize("name", NETWORKS)
def test_decoding_the_encoders_features_is_exact(name: str) -> None:
    features, x = build(name)
    expected = features.network(x)
    logits, tapped, encoded = features.split(x)
    tap = NETWORKS[name][3]
    assert logits.equal(expected)
    assert len(encoded) == NETWORKS[name][1]
    assert all(one.equal(other) for one, other in zip(features.encode(x), encoded, strict=True))
    again, tapped_again = features.decode_tapped(encoded)
    assert features.decode(encoded).equal(logits)
    assert again.equal(logits)
    assert tapped_again[tap].equal(tapped[tap])
    assert features(x)[1][tap].equal(tapped[tap])


@pytest.mark.parametrize("name", NETWORKS)
def test_decoding_depends_on_the_features_alone_and_on_each_of_them(name: str) -> None:
    features, x = build(name)
    logits, _, encoded = features.split(x)
    features.split(torch.randn_like(x))
    assert features.decode(encoded).equal(logits)
    assert features.decode([level[:1] for level in encoded]).allclose(logits[:1], atol=1e-5)
    for i, level in enumerate(encoded):
        changed = [*encoded[:i], level + torch.randn_like(level), *encoded[i + 1 :]]
        assert not features.decode(changed).allclose(logits), i


@pytest.mark.parametrize("name", WITHOUT_HALVES)
def test_substitutes_make_the_image_irrelevant(name: str) -> None:
    features, x = build(name)
    logits, _, encoded = features.split(x)
    substitute = dict(zip(encoder_taps(features.network), encoded, strict=True))
    other, _ = features(torch.randn_like(x), substitute)
    assert other.equal(logits)


@pytest.mark.parametrize("name", NETWORKS)
def test_gradient_of_a_decoding_reaches_the_whole_network(name: str) -> None:
    features, x = build(name, training=True)

    def reached(logits: Tensor) -> set[str]:
        features.network.zero_grad(set_to_none=True)
        logits.square().mean().backward()
        return {key for key, value in features.network.named_parameters() if value.grad is not None}

    # some networks have parameters that no image ever passes
    expected = reached(features.network(x))
    assert reached(features.decode([2 * level for level in features.encode(x)])) == expected


@pytest.mark.parametrize("name", ["UNet2D", "BasicUNet", "UNet", "SegResNet", "DynUNet"])
def test_decoding_keeps_the_encoders_running_statistics(name: str) -> None:
    features, x = build(name, training=True)
    encoded = features.encode(x)
    parts = ("encoder",) if name == "UNet2D" else encoder_taps(features.network)
    before = {part: tensors(features.network.get_submodule(part).state_dict()) for part in parts}
    assert any(key.endswith("running_mean") for state in before.values() for key in state)
    features.decode([0.5 * level for level in encoded])
    for part, state in before.items():
        after = features.network.get_submodule(part).state_dict()
        assert all(after[key].equal(value) for key, value in state.items()), part
    assert all(module.training for module in features.network.modules())


def test_state_and_ordinary_calls_of_the_network_are_as_without() -> None:
    features, x = build("BasicUNet")
    plain = NETWORKS["BasicUNet"][0]().eval()
    plain.load_state_dict(features.network.state_dict())
    assert features.network(x).equal(plain(x))
    assert features._bus.recorded is None

    class Holder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = features.network
            self.features = features

    assert {f"network.{key}" for key in plain.state_dict()} == set(Holder().state_dict())


@pytest.mark.parametrize("name", ["UNet2D", "BasicUNet"])
def test_copies_return_their_own_features(name: str) -> None:
    features, x = build(name)
    tap = NETWORKS[name][3]
    pickled = io.BytesIO()
    torch.save(features, pickled)
    pickled.seek(0)
    for other in (copy.deepcopy(features), torch.load(pickled, weights_only=False)):
        assert other.network is not features.network
        assert other(x)[1][tap].equal(features(x)[1][tap])
        with torch.no_grad():
            for parameter in other.network.parameters():
                parameter.mul_(0.5)
        assert not other(x)[1][tap].equal(features(x)[1][tap])
        assert other.decode(other.encode(x)).equal(other.network(x))


def test_copy_of_a_module_that_holds_network_and_features_stays_consistent() -> None:
    class Holder(nn.Module):
        def __init__(self, features: Features) -> None:
            super().__init__()
            self.network, self.features = features.network, features

    features, x = build("BasicUNet")
    holder = copy.deepcopy(Holder(features))
    assert holder.features.network is holder.network
    assert holder.features(x)[1]["upcat_1"].equal(features(x)[1]["upcat_1"])
    teacher = copy.deepcopy(features.network)
    assert teacher(x).equal(features.network(x))


def test_two_of_them_share_a_network() -> None:
    features, x = build("BasicUNet")
    other = Features(features.network, ["upcat_4"])
    assert list(features(x)[1]) == ["upcat_1"]
    assert list(other(x)[1]) == ["upcat_4"]
    assert other.decode(other.encode(x)).equal(features(x)[0])


@pytest.mark.parametrize("name", ["UNet2D", "BasicUNet", "SegResNet"])
def test_mixed_precision_decodes_exactly_too(name: str) -> None:
    features, x = build(name)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits, _, encoded = features.split(x)
        assert features.decode(encoded).equal(logits)
    assert any(level.dtype == torch.bfloat16 for level in encoded)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "backend"),
    [("BasicUNet", "eager"), *((name, "aot_eager") for name in ("UNet2D", "BasicUNet", "SegResNet"))],
)
@pytest.mark.parametrize("whole", [False, True], ids=["network", "step"])
def test_compiled_step_equals_the_eager_one(name: str, backend: str, whole: bool) -> None:
    """A network that is compiled in place, or a step around it."""

    def step(features: Features, x: Tensor) -> Any:
        logits, tapped, encoded = features.split(x)
        again, _ = features.decode_tapped([0.5 * level for level in encoded])
        return logits, again, tapped

    torch._dynamo.reset()
    features, x = build(name)
    expected = step(features, x)
    if whole:
        compiled = torch.compile(step, backend=backend)
    else:
        halves = [getattr(features.network, half) for half in ("encoder", "decoder") if hasattr(features.network, half)]
        for part in (features.network, *halves):
            part.compile(backend=backend)
        compiled = step
    for _ in range(2):
        logits, again, tapped = compiled(features, x)
        torch.testing.assert_close((logits, again, tapped), expected, rtol=1e-4, atol=1e-5)
    assert features._bus.recorded is None


def test_a_distributed_method_reads_and_decodes(tmp_path: Any) -> None:
    class Loss(nn.Module):
        def __init__(self, features: Features) -> None:
            super().__init__()
            self.network, self.features = features.network, features

        def forward(self, x: Tensor) -> Tensor:
            logits, tapped, encoded = self.features.split(x)
            return (self.features.decode(encoded) - 1).square().mean() + tapped["upcat_1"].mean() + logits.mean()

    features, x = build("BasicUNet", training=True)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        method = DistributedDataParallel(Loss(features))
        for _ in range(2):
            method(x).backward()
        assert all(parameter.grad is not None for parameter in method.parameters())
    finally:
        dist.destroy_process_group()


def test_encoder_can_be_named_for_networks_that_are_not_known() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enter, self.deeper, self.leave = nn.Conv2d(1, 2, 1), nn.Conv2d(2, 2, 1), nn.Conv2d(4, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            fine = self.enter(x)
            return self.leave(torch.cat([fine, self.deeper(fine)], dim=1))

    x = torch.randn(2, 1, 4, 4)
    unknown = Features(Own(), ["deeper"])
    assert unknown(x)[1]["deeper"].shape == (2, 2, 4, 4)
    for call in (unknown.split, unknown.encode, unknown.decode):
        with pytest.raises(ValueError, match=r"^where the encoder of Own ends is not known: known are BasicUNet.*name"):
            call(x)
    features = Features(Own(), encoder=["enter", "deeper"])
    assert features.decode(features.encode(x)).equal(features.network(x))


def test_derived_networks_are_known() -> None:
    class Derived(BasicUNet):
        pass

    assert encoder_taps(Derived()) == encoder_taps(BasicUNet())


@pytest.mark.parametrize("taps", [{"taps": ["upcat_9"]}, {"encoder": ["conv_0", "upcat_9"]}], ids=str)
def test_tap_that_does_not_exist_is_refused(taps: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"^BasicUNet has no submodule 'upcat_9' to tap: its children are \['conv_0'"):
        Features(BasicUNet(2), **taps)


def test_tap_that_is_never_called_is_refused() -> None:
    network = SegResNet(2, 8, 1, 3)
    with pytest.raises(ValueError, match=r"^SegResNet does not call \['down_layers'\]: tap"):
        Features(network, ["down_layers"])(torch.randn(1, 1, 16, 16))


def test_wrong_substitutes_and_numbers_of_features_are_refused() -> None:
    features, x = build("BasicUNet")
    with pytest.raises(ValueError, match=r"^substitute names \['down_9'\], which are no taps: .*'conv_0'"):
        features(x, {"down_9": x})
    encoded = features.encode(x)
    with pytest.raises(ValueError, match=r"^decode takes the 5 features that split or encode returned: \('conv_0'"):
        features.decode(encoded[:-1])
    with pytest.raises(ValueError, match=r"^decode takes the 5 features"):
        build("BasicUNet")[0].decode(encoded)
