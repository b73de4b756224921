# SPDX-License-Identifier: Apache-2.0
"""What is MCF's own: the winner of a batch teaches, the loser learns, and both review where they differ."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from plain import softmax, top, voxels
from torch import Tensor, nn

from metassl_monai.losses import CrossEntropyDiceLoss, SharpenedMSELoss, metassl_losses
from metassl_monai.losses.correction import label_distance
from metassl_monai.methods import MutualCorrection
from metassl_monai.networks import MeanOfTwo

NAMES = ("network", "second_network")
PAIRS = (NAMES, NAMES[::-1])
SPATIAL = {2: (8, 8), 3: (6, 8, 4)}

Voxel = list[float]


@pytest.fixture(params=[2, 3], ids=["2D", "3D"])
def dims(request: pytest.FixtureRequest) -> int:
    return request.param


@pytest.fixture
def make(make_network: Callable, dims: int) -> Callable[..., MutualCorrection]:
    def make(kind: str = "own", ramp: Callable[[int], float] = lambda step: 0.3, **options: Any) -> MutualCorrection:
        own = CrossEntropyDiceLoss(scale=1.0, include_background=False), SharpenedMSELoss(temperature=0.1)
        losses = own if kind == "own" else metassl_losses(3)
        networks = [make_network(batch_norm=False, dims=dims) for _ in NAMES]
        return MutualCorrection(networks[0], *losses, ramp, second_network=networks[1], **options).double()

    return make


@pytest.fixture
def batch(make_batch: Callable, dims: int) -> dict[str, dict[str, Tensor]]:
    streams = make_batch(spatial=SPATIAL[dims])
    return {stream: {key: value.double() for key, value in data.items()} for stream, data in streams.items()}


def let_win(method: MutualCorrection, winner: str) -> str:
    """Drown the foreground of the other network, which is returned."""
    loser = NAMES[winner == NAMES[0]]
    with torch.no_grad():
        method.get_submodule(loser).decoder.head.bias[0] += 1.0
    return loser


def slow_dice(logits: list[Voxel], target: list[int]) -> float:
    loss = 0.0
    for c in (1, 2):
        upper = lower = 1e-5
        for voxel, y in zip(logits, target, strict=True):
            p = softmax(voxel)[c]
            upper += 2 * p * (y == c)
            lower += p**2 + (y == c)
        loss += (1 - upper / lower) / 2
    return loss


def slow_labeled(logits: list[Voxel], target: list[int]) -> float:
    cross_entropies = [-math.log(softmax(voxel)[y]) for voxel, y in zip(logits, target, strict=True)]
    return sum(cross_entropies) / len(target) + slow_dice(logits, target)


def slow_review(logits: list[Voxel], others: list[Voxel], target: list[int]) -> float:
    distances = []
    for voxel, other, y in zip(logits, others, target, strict=True):
        if top(voxel) != top(other):
            distances.append(sum((p - (c == y)) ** 2 for c, p in enumerate(softmax(voxel))) / len(voxel))
    assert 0 < len(distances) < len(target)
    return sum(distances) / len(distances)


def slow_rectification(logits: list[Voxel], references: list[Voxel]) -> float:
    total = 0.0
    for voxel, reference in zip(logits, references, strict=True):
        powers = [q**10 for q in softmax(reference)]
        total += sum((p - q / sum(powers)) ** 2 for p, q in zip(softmax(voxel), powers, strict=True))
    return total / len(logits)


def gradients(method: nn.Module, term: Tensor) -> dict[str, bool]:
    found = {}
    for name in NAMES:
        parameters = list(method.get_submodule(name).parameters())
        values = torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True)
        assert all(value is None or bool(value.isfinite().all()) for value in values)
        found[name] = any(value is not None and bool(value.ne(0).any()) for value in values)
    return found


@pytest.mark.parametrize("winner", NAMES)
def test_all_terms_equal_the_slow_computation(make: Callable, batch: Any, winner: str) -> None:
    method = make(review_weight=0.7)
    loser = let_win(method, winner)
    terms, prediction = method(batch, 0)
    logits = {
        stream: {name: voxels(method.get_submodule(name)(data["image"])) for name in NAMES}
        for stream, data in batch.items()
    }
    labeled, unlabeled = logits["labeled"], logits["unlabeled"]
    target = [int(value) for value in batch["labeled"]["label"].flatten()]
    assert slow_dice(labeled[winner], target) < slow_dice(labeled[loser], target)
    expected = {f"labeled/{name}": slow_labeled(labeled[name], target) for name in NAMES}
    for name, other in PAIRS:
        expected[f"extra/review_{name}"] = 0.7 * slow_review(labeled[name], labeled[other], target)
    expected[f"unlabeled/{loser}"] = 0.3 * slow_rectification(unlabeled[loser], unlabeled[winner])
    expected[f"unlabeled/{winner}"] = 0.0
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(expected)
    assert voxels(prediction) == [pytest.approx(voxel) for voxel in labeled["network"]]


@pytest.mark.parametrize("kind", ["own", "metassl"])
@pytest.mark.parametrize("winner", NAMES)
def test_each_term_trains_its_network_alone_and_the_winner_learns_nothing_from_the_loser(
    make: Callable, batch: Any, kind: str, winner: str
) -> None:
    method = make(kind)
    loser = let_win(method, winner)
    terms, _ = method(batch, 0)
    learns = {
        f"{stream}{name}": {each: each == name for each in NAMES}
        for stream in ("labeled/", "unlabeled/", "extra/review_")
        for name in NAMES
    }
    learns[f"unlabeled/{winner}"] = dict.fromkeys(NAMES, False)
    assert {name: gradients(method, term) for name, term in terms.items()} == learns
    assert terms[f"unlabeled/{winner}"] == 0 < terms[f"unlabeled/{loser}"]


@pytest.mark.parametrize("kind", ["own", "metassl"])
def test_each_term_reads_the_images_of_its_stream(make: Callable, batch: Any, kind: str) -> None:
    method = make(kind)
    let_win(method, "network")
    images = {stream: data["image"].requires_grad_() for stream, data in batch.items()}
    for name, term in method(batch, 0)[0].items():
        values = torch.autograd.grad(term, list(images.values()), retain_graph=True, allow_unused=True)
        read = {s for s, value in zip(images, values, strict=True) if value is not None and value.ne(0).any()}
        stream = "unlabeled" if name.startswith("unlabeled/") else "labeled"
        assert read == ({stream} if name != "unlabeled/network" else set())


@pytest.mark.parametrize("winner", NAMES)
def test_thresholds_of_the_winner_hold_on_unlabeled_images(make: Callable, batch: Any, winner: str) -> None:
    method = make("metassl")
    loser = let_win(method, winner)
    before = copy.deepcopy(method.state_dict())
    method(batch, 0)
    moved = {key for key, value in method.state_dict().items() if value.ne(before[key]).any()}
    assert moved == {
        f"{loss}.partition.threshold.values"
        for loss in (*(f"labeled_losses.{name}" for name in NAMES), f"unlabeled_losses.{loser}")
    }


def test_reference_is_not_sharpened_for_the_loss_and_detached_by_it(make: Callable, batch: Any) -> None:
    method = make()
    pairs = {(pair.name, pair.target is None): pair for pair in method.pairs(batch, 0).pairs}
    for name, other in PAIRS:
        for unlabeled in (False, True):
            assert pairs[name, unlabeled].reference.equal(pairs[other, unlabeled].prediction)
    assert pairs["network", True].mask.logical_xor(pairs["second_network", True].mask).all()


def test_in_a_tie_both_learn(make: Callable, batch: Any) -> None:
    method = make()
    method.second_network.load_state_dict(method.network.state_dict())
    terms, _ = method(batch, 0)
    assert all(terms[f"unlabeled/{name}"] > 0 for name in NAMES)
    assert all(terms[f"extra/review_{name}"] == 0 for name in NAMES)


def test_ramp_is_for_unlabeled_images_alone(make: Callable, batch: Any) -> None:
    method = make(ramp=lambda step: 0.1 * step)
    one, five = method(batch, 1)[0], method(batch, 5)[0]
    for name, term in one.items():
        torch.testing.assert_close(five[name], term * (5 if name.startswith("unlabeled") else 1))


def test_distance_from_a_label_of_two_classes_is_that_of_the_foreground() -> None:
    logits, label = torch.randn(2, 2, 5), torch.randint(0, 2, (2, 1, 5))
    torch.testing.assert_close(label_distance(logits, label), (logits.softmax(1)[:, 1:] - label).square())


def test_both_networks_answer_with_their_mean(make: Callable) -> None:
    method = make()
    network = method.inference_network
    assert isinstance(network, MeanOfTwo)
    assert (network.first, network.second) == (method.network, method.second_network)


def test_same_network_twice_is_refused(make_network: Callable) -> None:
    network = make_network()
    with pytest.raises(ValueError, match="same object"):
        MutualCorrection(network, *metassl_losses(3), lambda step: 1.0, second_network=network)
