# SPDX-License-Identifier: Apache-2.0
"""What is cross-consistency training's own: auxiliary decoders of perturbed features."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from metassl_monai.engines.trainer import compile_method
from metassl_monai.losses import metassl_losses
from metassl_monai.methods import CrossConsistencyTraining
from metassl_monai.methods.perturbations import PERTURBATIONS
from metassl_monai.networks import UNet2D


@pytest.fixture
def method(row_of: Callable, make_method: Callable) -> CrossConsistencyTraining:
    return make_method(row_of("CrossConsistencyTraining"))


def test_decoders_start_from_weights_of_their_own() -> None:
    network = UNet2D(1, 3, features=(4, 8), dropout=(0.0, 0.0))
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.fill_(5.0)  # not to be inherited either
    method = CrossConsistencyTraining(network, *metassl_losses(3), ramp=lambda step: 1.0)
    decoders = [method.network.decoder, *method.decoders.values()]
    assert len(decoders) == 1 + len(PERTURBATIONS) == 4
    for one, other in itertools.combinations(decoders, 2):
        weights = dict(other.named_parameters())
        assert weights.keys() == dict(one.named_parameters()).keys()
        for name, parameter in one.named_parameters():
            assert parameter.data_ptr() != weights[name].data_ptr()
            if parameter.ndim > 1:  # biases and scales of batch norm start as constants
                assert not parameter.equal(weights[name]), name
    for decoder in method.decoders.values():
        assert all(buffer.eq(0).all() for name, buffer in decoder.named_buffers() if name.endswith("running_mean"))


class WithoutDecoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Conv2d(1, 2, 1)


@pytest.mark.parametrize("network", [nn.Conv2d(1, 2, 1), WithoutDecoder()], ids=["neither", "encoder"])
def test_network_without_encoder_or_decoder_is_refused_with_the_remedy(network: nn.Module) -> None:
    with pytest.raises(ValueError, match=rf"^{type(network).__name__} has no `encoder` and `decoder`.*networks"):
        CrossConsistencyTraining(network, *metassl_losses(2), ramp=lambda step: 1.0)


def test_each_decoder_gets_its_perturbation_of_every_level_anew_at_each_step(
    method: CrossConsistencyTraining, batch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in PERTURBATIONS}
    given: dict[str, list[list[Tensor]]] = {name: [] for name in (*PERTURBATIONS, "main")}
    originals = dict(PERTURBATIONS)

    def spy(name: str) -> Callable[[Tensor], Tensor]:
        def perturb(x: Tensor) -> Tensor:
            made[name].append((x, originals[name](x)))
            return made[name][-1][1]

        return perturb

    def keep(name: str, decoder: nn.Module) -> None:
        decoder.register_forward_pre_hook(lambda module, inputs: given[name].append(list(inputs[0])))

    for name in originals:
        monkeypatch.setitem(PERTURBATIONS, name, spy(name))
        keep(name, method.decoders[name])
    keep("main", method.network.decoder)
    method(batch, 0)
    method(batch, 1)
    images = len(batch["labeled"]["image"]) + len(batch["unlabeled"]["image"])
    for name in originals:
        assert [len(levels) for levels in given[name]] == [2, 2]
        assert len(made[name]) == 4
        for step in range(2):
            for level in range(2):
                features, perturbed = made[name][2 * step + level]
                assert len(features) == images  # of both streams
                assert features is given["main"][step][level]  # the main decoder's are not perturbed
                assert perturbed is given[name][step][level]
                assert not perturbed.equal(features)
        factors = [(perturbed / features).nan_to_num() for features, perturbed in made[name]]
        assert not factors[0].allclose(factors[2])


def test_main_decoder_is_exported_alone(method: CrossConsistencyTraining) -> None:
    assert method.inference_network is method.network
    assert not any(key.startswith("decoders") for key in method.inference_network.state_dict())


@pytest.mark.slow
def test_compiled_method_takes_the_same_steps(
    row_of: Callable, make_method: Callable, batch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in PERTURBATIONS:  # compilers draw other numbers
        monkeypatch.setitem(PERTURBATIONS, name, lambda x: 0.9 * x)
    torch._dynamo.reset()
    row = row_of("CrossConsistencyTraining")
    eager, compiled = make_method(row), make_method(row)
    compiled.load_state_dict(eager.state_dict())
    compile_method(compiled, backend="aot_eager")
    for method in (eager, compiled):
        sum(method(batch, 0)[0].values()).backward()
    for (name, expected), parameter in zip(eager.named_parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, expected.grad, rtol=1e-4, atol=1e-6, msg=name)
    assert all(decoder._compiled_call_impl is not None for decoder in compiled.decoders.values())


@pytest.mark.slow
def test_perturbations_compile_too(method: CrossConsistencyTraining, batch: Any) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(method, backend="aot_eager")
    terms, _ = compiled(batch, 0)
    sum(terms.values()).backward()
    assert all(term.isfinite() for term in terms.values())
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in method.parameters())
