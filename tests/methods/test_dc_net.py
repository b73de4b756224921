# SPDX-License-Identifier: Apache-2.0
"""DC-Net: who learns from which term, the threshold, and each term against plain loops."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from method_rows import METHODS
from plain import is_learned, softmax, voxels
from torch import Tensor, nn

from metassl_monai.engines.trainer import compile_method
from metassl_monai.losses import (
    CrossEntropyDiceLoss,
    DecoupledConsistencyLoss,
    MetaSSLUnlabeledLoss,
    metassl_losses,
)
from metassl_monai.methods import DecoupledConsistency
from metassl_monai.methods.dc_net import attention_distance
from metassl_monai.networks import UNet2D, VNet3D

Batch = dict[str, dict[str, Tensor]]
Voxel = list[float]
STREAMS = ("labeled", "unlabeled")
ROW = METHODS["dc_net"]


@pytest.fixture
def make(losses: str) -> Callable[..., tuple[DecoupledConsistency, Batch]]:
    def make(dims: int = 2, **arguments: Any) -> tuple[DecoupledConsistency, Batch]:
        features = (2, 3, 4)
        network = UNet2D(1, 3, features, (0.0,) * 3) if dims == 2 else VNet3D(1, 3, features, 0.0)
        own = CrossEntropyDiceLoss(), DecoupledConsistencyLoss(2.0, 50.0, temperature=0.7)
        chosen = metassl_losses(3) if losses == "metassl" else own
        arguments = {"ramp": lambda step: 0.3, "num_classes": 3, "iterations": 5, **arguments}
        method = DecoupledConsistency(network, *chosen, **arguments)
        for decoder in (method.network.decoder, method.second_decoder):
            nn.init.normal_(decoder.head.weight)  # else no voxel is surer than the others
        shape = (2, 1, *[8] * dims)
        labeled = {"image": torch.randn(shape), "label": torch.randint(0, 3, shape).float()}
        return method, {"labeled": labeled, "unlabeled": {"image": torch.randn(3, *shape[1:])}}

    return make


@pytest.mark.parametrize("dims", [2, 3])
def test_each_term_trains_what_it_should_and_nothing_else(make: Callable, dims: int) -> None:
    method, batch = make(dims)
    terms, prediction = method(batch, 0)
    learned = {n: {p for p in ROW.parts if is_learned(term, method.get_submodule(p))} for n, term in terms.items()}
    assert learned == ROW.terms()
    assert prediction.shape == (2, 3, *[8] * dims)
    sum(terms.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in method.parameters())


def test_each_term_reads_the_images_of_its_stream_and_the_distillation_all(make: Callable) -> None:
    """In evaluation mode, where batch norm does not mix the images."""
    method, batch = make()
    method.eval()
    images = [batch[stream]["image"].requires_grad_() for stream in STREAMS]
    for name, term in method(batch, 0)[0].items():
        values = torch.autograd.grad(term, images, retain_graph=True, allow_unused=True)
        read = {s for s, value in zip(STREAMS, values, strict=True) if value is not None and value.ne(0).any()}
        assert read == (set(STREAMS) if name.startswith("extra") else {name.split("/")[0]})


def test_distillation_fades_as_the_ramp_rises(make: Callable) -> None:
    method, batch = make(distillation_weight=10.0)
    values = []
    for ramp in (0.0, 0.3, 1.0):
        method.ramp = lambda step, ramp=ramp: ramp
        values.append(method(batch, 0)[0]["extra/distillation"].item())
    assert values == pytest.approx([values[0], 0.7 * values[0], 0.0])


def test_threshold_is_a_checkpointed_scalar_that_moves_in_training_only(make: Callable) -> None:
    method, batch = make()
    assert method.state_dict()["threshold"].item() == pytest.approx(1 / 3)
    method.eval()(batch, 0)
    assert method.threshold.item() == pytest.approx(1 / 3)
    duplicate = copy.deepcopy(method)
    method.train()(batch, 0)
    assert method.threshold > duplicate.threshold
    duplicate.load_state_dict(method.state_dict())
    assert duplicate.threshold.equal(method.threshold)


def test_threshold_stays_below_its_limit_after_the_last_iteration(make: Callable) -> None:
    method, batch = make()
    for decoder in (method.network.decoder, method.second_decoder):
        with torch.no_grad():
            decoder.head.weight.mul_(1e3)
    method(batch, 100)
    assert method.threshold.item() == pytest.approx(0.95)


# The slow side: lists of voxels.


def slow_threshold(threshold: float, first: list[Voxel], second: list[Voxel], share: float) -> float:
    means = [sum(max(softmax(voxel)) for voxel in logits) / len(logits) for logits in (first, second)]
    return min((1 - share) * threshold + share * min(means), 0.95)


def slow_term(predictions: list[Voxel], references: list[Voxel], threshold: float) -> tuple[float, list[int]]:
    total, codes = 0.0, []
    for p, q in zip(predictions, references, strict=True):
        own, other = max(softmax(p)), max(softmax(q))
        if own > threshold and other > threshold:
            codes.append(1)
            total += 2.0 * -math.log(softmax(p)[q.index(max(q))])
        elif other > own:
            codes.append(2)
            total += 50.0 * sum((a - b) ** 2 for a, b in zip(softmax(p, 0.7), softmax(q, 0.7), strict=True)) / 3
        else:
            codes.append(0)
    return total / len(predictions), codes


def slow_attention(features: Tensor) -> list[Voxel]:
    maps = []
    for flat in features.flatten(2).tolist():
        attention = [sum(channel[i] ** 2 for channel in flat) / len(flat) for i in range(len(flat[0]))]
        length = math.sqrt(sum(value**2 for value in attention))
        maps.append([value / length for value in attention])
    return maps


def test_terms_and_threshold_of_three_steps_equal_the_slow_computation(make: Callable, losses: str) -> None:
    method, batch = make(ramp=lambda step: 0.1 + step / 10)
    method.double()
    batch = {stream: {key: value.double() for key, value in data.items()} for stream, data in batch.items()}
    threshold, seen = 1 / 3, set()
    metassl = {name: MetaSSLUnlabeledLoss(3) for name in ("network", "second_decoder")}
    for step in range(3):
        terms, _ = method(batch, step)
        encoded = method.network.encoder(torch.cat([batch[stream]["image"] for stream in STREAMS]))
        logits = [decoder(encoded)[2:].detach() for decoder in (method.network.decoder, method.second_decoder)]
        first, second = map(voxels, logits)
        threshold = slow_threshold(threshold, first, second, (step + 1) / 5)
        assert method.threshold.item() == pytest.approx(threshold, rel=1e-6)
        for name, own, other in (("network", 0, 1), ("second_decoder", 1, 0)):
            expected, codes = slow_term((first, second)[own], (first, second)[other], threshold)
            seen |= set(codes)
            if losses == "metassl":
                mask = torch.tensor(codes).view(3, 1, 8, 8)
                expected = metassl[name](logits[own], logits[other], mask=mask).item()
            assert terms[f"unlabeled/{name}"].item() == pytest.approx((0.1 + step / 10) * expected, rel=1e-6)
        with torch.no_grad():
            method.network.encoder.blocks[0][0].conv.weight.mul_(1.2)
            method.second_decoder.head.weight.mul_(1.3)
    assert seen == {0, 1, 2}


def test_distillation_equals_the_slow_computation(make: Callable) -> None:
    method, batch = make(distillation_weight=10.0)
    method.double()
    images = torch.cat([batch[stream]["image"] for stream in STREAMS]).double()
    outputs: list[Tensor] = []
    for block in method.second_decoder.blocks:
        block.register_forward_hook(lambda *call: outputs.append(call[2].detach()))
    encoded = method.network.encoder(images)
    method.second_decoder(encoded)
    expected = 0.0
    for student, teacher in zip(encoded[:2], outputs[::-1], strict=True):
        rows = zip(slow_attention(student.detach()), slow_attention(teacher), strict=True)
        squares = [(a - b) ** 2 for one, other in rows for a, b in zip(one, other, strict=True)]
        expected += sum(squares) / len(squares)
    batch = {stream: {key: value.double() for key, value in data.items()} for stream, data in batch.items()}
    assert method(batch, 0)[0]["extra/distillation"].item() == pytest.approx(7.0 * expected, rel=1e-6)


def test_attention_moves_the_student_alone_and_takes_half_precision() -> None:
    student, teacher = (torch.full((1, 2, 4, 4), 300.0, dtype=torch.float16, requires_grad=True) for _ in range(2))
    distance = attention_distance([student * torch.rand(4, 4)], [teacher])
    assert distance.isfinite()
    assert torch.autograd.grad(distance, teacher, retain_graph=True, allow_unused=True) == (None,)
    assert torch.autograd.grad(distance, student)[0].ne(0).any()


@pytest.mark.slow
def test_compiled_method_computes_the_same_terms(make: Callable) -> None:
    torch._dynamo.reset()
    eager, batch = make()
    compiled = copy.deepcopy(eager)
    compile_method(compiled, backend="aot_eager")
    for step in range(2):
        expected, terms = eager(batch, step)[0], compiled(batch, step)[0]
        assert all(term.item() == pytest.approx(expected[name].item(), rel=1e-3) for name, term in terms.items())


def test_loss_of_an_empty_mask_is_zero_and_no_mask_means_sure() -> None:
    loss = DecoupledConsistencyLoss(sure_weight=1.0)
    input, reference = torch.randn(2, 3, 4, requires_grad=True), torch.randn(2, 3, 4, requires_grad=True)
    assert loss(input, reference, mask=torch.zeros(2, 1, 4)) == 0
    ones = torch.ones(2, 1, 4)
    torch.testing.assert_close(loss(input, reference), loss(input, reference, mask=ones))
    for value in (1, 2):
        total = loss(input, reference, mask=value * ones)
        assert torch.autograd.grad(total, reference, retain_graph=True, allow_unused=True) == (None,)
        assert torch.autograd.grad(total, input)[0].ne(0).all()


def test_what_cannot_work_is_refused_with_the_remedy() -> None:
    shared = *metassl_losses(3), lambda step: 0.1
    with pytest.raises(ValueError, match=r"Conv2d has no `encoder`.*use UNet2D or VNet3D"):
        DecoupledConsistency(nn.Conv2d(1, 3, 1), *shared, num_classes=3, iterations=1)
    with pytest.raises(ValueError, match="iterations=0"):
        DecoupledConsistency(UNet2D(1, 3, (2, 3), (0.0, 0.0)), *shared, num_classes=3, iterations=0)
    with pytest.raises(ValueError, match=r"temperature=0.*0\.5"):
        DecoupledConsistencyLoss(temperature=0)
