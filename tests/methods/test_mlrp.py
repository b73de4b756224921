# SPDX-License-Identifier: Apache-2.0
"""MLRP: who learns from which term, and each term against plain loops."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from plain import is_learned, softmax
from torch import Tensor, nn

from metassl_monai.engines.trainer import compile_method
from metassl_monai.losses import (
    CrossEntropyDiceLoss,
    MetaSSLUnlabeledLoss,
    ReliablePseudoLabelLoss,
    metassl_losses,
)
from metassl_monai.methods import ReliableMutualLearning
from metassl_monai.methods.mlrp import reliability
from metassl_monai.networks import UNet2D, VNet3D

Batch = dict[str, dict[str, Tensor]]
Voxel = list[float]
STREAMS = ("labeled", "unlabeled")
LEARNS = {
    **{f"{stream}/network": {"network.encoder", "network.decoder"} for stream in STREAMS},
    **{f"{stream}/second_decoder": {"network.encoder", "second_decoder"} for stream in STREAMS},
}
PARTS = ("network.encoder", "network.decoder", "second_decoder")


@pytest.fixture
def make(losses: str) -> Callable[..., tuple[ReliableMutualLearning, Batch]]:
    def make(dims: int = 2, tap: str = "blocks.1", **arguments: Any) -> tuple[ReliableMutualLearning, Batch]:
        features = (2, 3, 4)
        network = UNet2D(1, 3, features, (0.0,) * 3) if dims == 2 else VNet3D(1, 3, features, 0.0)
        own = CrossEntropyDiceLoss(), ReliablePseudoLabelLoss()
        chosen = metassl_losses(3) if losses == "metassl" else own
        method = ReliableMutualLearning(network, *chosen, **{"ramp": lambda step: 0.3, **arguments}, tap=tap)
        for decoder in (method.network.decoder, method.second_decoder):
            nn.init.normal_(decoder.head.weight)  # else one decoder is surer everywhere
            nn.init.zeros_(decoder.head.bias)
        shape = (2, 1, *[8] * dims)
        labeled = {"image": torch.randn(shape), "label": torch.randint(0, 3, shape).float()}
        return method, {"labeled": labeled, "unlabeled": {"image": torch.randn(3, *shape[1:])}}

    return make


@pytest.mark.parametrize(("dims", "tap"), [(2, "blocks.1"), (2, "blocks.0"), (3, "blocks.1")])
def test_each_term_trains_what_it_should_and_nothing_else(make: Callable, dims: int, tap: str) -> None:
    method, batch = make(dims, tap)
    terms, prediction = method(batch, 0)
    learned = {n: {p for p in PARTS if is_learned(term, method.get_submodule(p))} for n, term in terms.items()}
    assert learned == LEARNS
    assert prediction.shape == (2, 3, *[8] * dims)
    sum(terms.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in method.parameters())


def test_each_term_reads_the_images_of_its_stream(make: Callable) -> None:
    """In evaluation mode, where batch norm does not mix the images."""
    method, batch = make()
    for _ in range(30):
        method(batch, 0)  # with first running statistics one decoder is surer everywhere
    method.eval()
    images = [batch[stream]["image"].requires_grad_() for stream in STREAMS]
    for name, term in method(batch, 0)[0].items():
        values = torch.autograd.grad(term, images, retain_graph=True, allow_unused=True)
        read = {s for s, value in zip(STREAMS, values, strict=True) if value is not None and value.ne(0).any()}
        assert read == {name.split("/")[0]}


def test_one_decoder_learns_at_each_unlabeled_voxel_and_labeled_ones_count_all(make: Callable) -> None:
    method, batch = make()
    pairs = {("labeled" if p.target is not None else "unlabeled", p.name): p for p in method.pairs(batch, 0).pairs}
    first, second = (pairs["unlabeled", name].mask for name in ("network", "second_decoder"))
    assert ((first != 0) ^ (second != 0)).all()
    assert 0 < (first != 0).sum() < first.numel()
    assert not first.requires_grad
    assert all(pairs["labeled", name].mask is None for name in ("network", "second_decoder"))


def test_nobody_teaches_where_both_are_alike(make: Callable) -> None:
    method, batch = make()
    method.second_decoder.load_state_dict(method.network.decoder.state_dict())
    terms, _ = method.eval()(batch, 0)
    assert terms["unlabeled/network"] == terms["unlabeled/second_decoder"] == 0


# The slow side: lists of voxels.


def voxels(image: Tensor) -> list[Voxel]:
    return image.detach().flatten(1).T.tolist()


def entropy(voxel: Voxel) -> float:
    return -sum(p * math.log(p) for p in softmax(voxel))


def cosine(a: Voxel, b: Voxel) -> float:
    lengths = math.hypot(*a) * math.hypot(*b)
    return sum(x * y for x, y in zip(a, b, strict=True)) / lengths if lengths else 0.0


def slow_reliability(logits: list[Voxel], features: list[Voxel]) -> list[float]:
    labels = [voxel.index(max(voxel)) for voxel in logits]
    prototypes = []
    for c in range(3):
        members = [feature for feature, label in zip(features, labels, strict=True) if label == c]
        columns = zip(*members, strict=True) if members else [[0.0]] * len(features[0])
        prototypes.append([sum(column) / max(len(members), 1) for column in columns])
    weights = []
    for voxel, feature in zip(logits, features, strict=True):
        similarity = [cosine(feature, prototype) for prototype in prototypes]
        weights.append(1 - sum((s - p) ** 2 for s, p in zip(similarity, softmax(voxel), strict=True)) / 3)
    return weights


def test_reliability_equals_the_slow_computation_with_and_without_an_absent_class() -> None:
    logits = torch.randn(4, 3, 5, 5, dtype=torch.float64)
    features = torch.randn(4, 2, 5, 5, dtype=torch.float64)
    logits[1, 2] = -9.0
    found = reliability(logits, features)
    for i in range(4):
        expected = slow_reliability(voxels(logits[i]), voxels(features[i]))
        assert found[i].flatten().tolist() == pytest.approx(expected, rel=1e-6)
    assert (reliability(logits, features.abs()) >= 0).all()
    assert found.max() <= 1
    torch.testing.assert_close(reliability(logits[:1], features[:1]), found[:1])  # each image by itself


def test_unlabeled_terms_equal_the_slow_computation(make: Callable, losses: str) -> None:
    method, batch = make(ramp=lambda step: 0.3 + step)
    method.double()
    batch = {stream: {key: value.double() for key, value in data.items()} for stream, data in batch.items()}
    metassl = {name: MetaSSLUnlabeledLoss(3) for name in ("network", "second_decoder")}
    decoders = method.network.decoder, method.second_decoder
    features: list[Tensor] = []
    for decoder in decoders:
        decoder.blocks[1].register_forward_hook(lambda *call: features.append(call[2].detach().clone()))
    for step in range(3):
        terms, _ = method(batch, step)
        encoded = method.network.encoder(torch.cat([batch[stream]["image"] for stream in STREAMS]))
        features.clear()
        logits = [decoder(encoded)[2:].detach() for decoder in decoders]
        for name, own, other in (("network", 0, 1), ("second_decoder", 1, 0)):
            total, inside = 0.0, []
            for p_image, q_image, feature in zip(logits[own], logits[other], features[other][2:], strict=True):
                ps, qs = voxels(p_image), voxels(q_image)
                for p, q, weight in zip(ps, qs, slow_reliability(qs, voxels(feature)), strict=True):
                    inside.append(entropy(q) < entropy(p))
                    total += inside[-1] * max(weight, 0.0) * -math.log(softmax(p)[q.index(max(q))])
            expected = total / sum(inside)
            if losses == "metassl":
                mask = torch.tensor(inside).view(3, 1, 8, 8)
                expected = metassl[name](logits[own], logits[other], mask=mask).item()
            assert terms[f"unlabeled/{name}"].item() == pytest.approx((0.3 + step) * expected, rel=1e-6)
        with torch.no_grad():
            method.network.encoder.blocks[0][0].conv.weight.mul_(1.2)


@pytest.mark.slow
def test_compiled_method_computes_the_same_terms(make: Callable) -> None:
    torch._dynamo.reset()
    eager, batch = make()
    compiled = copy.deepcopy(eager)
    compile_method(compiled, backend="aot_eager")
    for step in range(2):
        expected, terms = eager(batch, step)[0], compiled(batch, step)[0]
        assert all(term.item() == pytest.approx(expected[name].item(), rel=1e-3) for name, term in terms.items())


def test_loss_takes_the_mask_as_weights_and_passes_nothing_to_the_reference() -> None:
    loss = ReliablePseudoLabelLoss()
    input, reference = (torch.randn(2, 3, 4, requires_grad=True) for _ in range(2))
    assert loss(input, reference, mask=torch.zeros(2, 1, 4)) == 0
    torch.testing.assert_close(loss(input, reference, mask=torch.full((2, 1, 4), 0.5)), loss(input, reference) / 2)
    assert torch.autograd.grad(loss(input, reference), reference, allow_unused=True) == (None,)


def test_what_cannot_work_is_refused_with_the_remedy() -> None:
    shared = *metassl_losses(3), lambda step: 0.1
    with pytest.raises(ValueError, match=r"Conv2d has no `encoder`.*metassl_monai\.networks"):
        ReliableMutualLearning(nn.Conv2d(1, 3, 1), *shared, tap="blocks.0")
    with pytest.raises(ValueError, match=r"no submodule 'blocks\.7'"):
        ReliableMutualLearning(UNet2D(1, 3, (2, 3), (0.0, 0.0)), *shared, tap="blocks.7")
