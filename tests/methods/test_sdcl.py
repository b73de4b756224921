# SPDX-License-Identifier: Apache-2.0
"""What is SDCL's own: a second student on the same mixtures, and corrections where the students differ."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from plain import softmax, top, voxels
from torch import Tensor

from metassl_monai.losses import CrossEntropyDiceLoss, PseudoLabelDiceLoss, metassl_losses
from metassl_monai.losses.correction import label_distance, uniform_divergence
from metassl_monai.methods import BidirectionalCopyPaste, DiscrepancyCorrection
from metassl_monai.methods.components import largest_components

STUDENTS = ("network", "second_network")
HALVES = ("inward", "outward")
STREAMS = ("labeled", "unlabeled")
SPATIAL = {2: (8, 8), 3: (6, 8, 4)}
CORRECTIONS = {f"extra/{kind}_{student}" for kind in ("distance", "uniform") for student in STUDENTS}

Voxel = list[float]


@pytest.fixture(params=[2, 3], ids=["2D", "3D"])
def dims(request: pytest.FixtureRequest) -> int:
    return request.param


@pytest.fixture
def make(make_network: Callable, shake: Callable, dims: int) -> Callable[..., Any]:
    """Students and a teacher of weights of their own; the same ones in every call."""

    def make(
        kind: str = "own",
        ramp: Callable[[int], float] = lambda step: 1.0,
        method: type[BidirectionalCopyPaste] = DiscrepancyCorrection,
        **options: Any,
    ) -> Any:
        losses = (CrossEntropyDiceLoss(), PseudoLabelDiceLoss()) if kind == "own" else metassl_losses(3)
        if method is DiscrepancyCorrection:
            options["second_network"] = copy.deepcopy(networks[1])
        built = method(copy.deepcopy(networks[0]), *losses, ramp, **options).double()
        built.teacher.load_state_dict(networks[2].state_dict())
        return built

    networks = [make_network(batch_norm=False, dims=dims) for _ in range(3)]
    for network in networks:
        shake(network, 0.2)
    return make


@pytest.fixture
def batch(make_batch: Callable, dims: int) -> dict[str, dict[str, Tensor]]:
    streams = make_batch(spatial=SPATIAL[dims])
    return {stream: {key: value.double() for key, value in data.items()} for stream, data in streams.items()}


def mixtures(method: Any, batch: Any) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Images, labels and masks of the mixtures, one by one, by the mask of the last step."""
    labeled, unlabeled = batch["labeled"], batch["unlabeled"]["image"]
    pseudo = largest_components(method.teacher(unlabeled).argmax(1, keepdim=True), 3)
    images, labels, masks = [], [], list(method.paste.mask)
    for i, inside in enumerate(masks):
        partner = i % len(labeled["image"])
        image, label = unlabeled[i].clone(), pseudo[i].clone()
        image[inside] = labeled["image"][partner][inside]
        label[inside] = labeled["label"][partner][inside].long()
        images.append(image)
        labels.append(label)
    return images, labels, masks


def slow_corrections(method: Any, batch: Any, ramp: float) -> dict[str, float]:
    images, labels, masks = mixtures(method, batch)
    terms = dict.fromkeys(CORRECTIONS, 0.0)
    for half in (slice(0, 2), slice(2, 3)):
        logits = {s: voxels(method.get_submodule(s)(torch.stack(images[half]))) for s in STUDENTS}
        target = [int(y) for label in labels[half] for y in label.flatten()]
        inside = [bool(x) for mask in masks[half] for x in mask.flatten()]
        for student, other in (STUDENTS, STUDENTS[::-1]):
            differ = wrong = 0
            distance = uniform = 0.0
            for voxel, another, y, from_labeled in zip(logits[student], logits[other], target, inside, strict=True):
                if top(voxel) == top(another):
                    continue
                weight = 1.0 if from_labeled else 0.4 * ramp
                p = softmax(voxel)
                differ += 1
                distance += weight * sum((p[c] - (c == y)) ** 2 for c in range(3)) / 3
                if top(voxel) != y:
                    wrong += 1
                    uniform += weight * sum(math.log((1 / 3) / p[c]) / 3 for c in range(3))
            assert 0 < wrong < differ < len(target)
            terms[f"extra/distance_{student}"] += 0.6 * distance / differ
            terms[f"extra/uniform_{student}"] += 0.2 * uniform / wrong
    return terms


@pytest.mark.parametrize("ramp", [1.0, 0.25])
def test_corrections_equal_the_slow_computation(make: Callable, batch: Any, play: Callable, ramp: float) -> None:
    method = make(ramp=lambda step: ramp, unlabeled_weight=0.4, distance_weight=0.6, uniform_weight=0.2)
    terms, _ = play(method, batch)
    expected = slow_corrections(method, batch, ramp)
    assert {name: terms[name].item() for name in CORRECTIONS} == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["own", "metassl"])
def test_first_student_learns_as_in_copy_paste_and_the_second_one_alike(
    make: Callable, batch: Any, play: Callable, kind: str
) -> None:
    method = make(kind)
    expected, prediction = play(make(kind, method=BidirectionalCopyPaste), batch)
    swapped = make(kind, method=BidirectionalCopyPaste)
    swapped.network.load_state_dict(method.second_network.state_dict())
    second, _ = play(swapped, batch)
    terms, own_prediction = play(method, batch)
    assert own_prediction.equal(prediction)
    expected |= {name.replace("/", "/second_"): term for name, term in second.items()}
    assert set(terms) == set(expected) | CORRECTIONS
    for name, term in expected.items():
        torch.testing.assert_close(terms[name], term)


@pytest.mark.parametrize("kind", ["own", "metassl"])
def test_each_term_trains_its_student_alone(make: Callable, batch: Any, kind: str) -> None:
    method = make(kind)
    terms, _ = method(batch, 0)
    learns = {f"{stream}/{half}": {"network"} for stream in STREAMS for half in HALVES}
    learns |= {f"{stream}/second_{half}": {"second_network"} for stream in STREAMS for half in HALVES}
    learns |= {f"extra/{kind}_{student}": {student} for kind in ("distance", "uniform") for student in STUDENTS}
    found = {}
    for name, term in terms.items():
        method.zero_grad(set_to_none=True)
        term.backward(retain_graph=True)
        found[name] = {
            part
            for part in (*STUDENTS, "teacher")
            if any(p.grad is not None and bool(p.grad.ne(0).any()) for p in method.get_submodule(part).parameters())
        }
    assert found == learns


def test_corrections_reach_only_the_voxels_where_the_students_differ(make: Callable, batch: Any) -> None:
    method = make()
    seen: dict[str, list[Tensor]] = {student: [] for student in STUDENTS}
    for student in STUDENTS:
        method.get_submodule(student).register_forward_hook(
            lambda module, inputs, logits, student=student: seen[student].append(logits)
        )
    terms, _ = method(batch, 0)
    assert [len(half) for halves in seen.values() for half in halves] == [2, 1, 2, 1]
    guesses = {student: torch.cat(halves).argmax(1, keepdim=True) for student, halves in seen.items()}
    differ = guesses["network"] != guesses["second_network"]
    target = torch.stack(mixtures(method, batch)[1])
    for student in STUDENTS:
        for kind, where in (("distance", differ), ("uniform", differ & (guesses[student] != target))):
            gradient = torch.cat(
                torch.autograd.grad(terms[f"extra/{kind}_{student}"], seen[student], retain_graph=True)
            )
            assert gradient.ne(0).any(1, keepdim=True).equal(where)


def test_students_that_agree_have_nothing_to_correct(make: Callable, batch: Any) -> None:
    method = make()
    method.second_network.load_state_dict(method.network.state_dict())
    terms, _ = method(batch, 0)
    assert all(terms[name] == 0 for name in CORRECTIONS)
    sum(terms.values()).backward()
    assert all(p.grad.isfinite().all() for p in method.parameters() if p.requires_grad)


def test_one_unlabeled_image_has_no_outward_terms(make: Callable, make_batch: Callable, dims: int) -> None:
    streams = make_batch(2, 1, SPATIAL[dims])
    terms, _ = make().float()(streams, 0)
    pairs = {f"{stream}/{half}" for stream in STREAMS for half in ("inward", "second_inward")}
    assert set(terms) == pairs | CORRECTIONS


def test_every_threshold_of_both_students_moves(make: Callable, batch: Any) -> None:
    method = make("metassl")
    before = copy.deepcopy(method.state_dict())
    method(batch, 0)
    moved = {key for key, value in method.state_dict().items() if value.ne(before[key]).any()}
    assert moved == {
        f"{stream}_losses.{second}{half}.partition.threshold.values"
        for stream in STREAMS
        for second in ("", "second_")
        for half in HALVES
    }


def test_teacher_follows_the_first_student_alone(make: Callable, shake: Callable) -> None:
    method = make(decay=0.9)
    before = copy.deepcopy(method.teacher)
    shake(method.second_network)
    method.update(0)
    parameters = zip(method.teacher.parameters(), before.parameters(), method.network.parameters(), strict=True)
    for new, old, student in parameters:
        torch.testing.assert_close(new, 0.9 * old + 0.1 * student)
    assert method.inference_network is method.network


def test_maps_are_those_of_torch() -> None:
    logits, label = torch.randn(2, 3, 5), torch.randint(0, 3, (2, 1, 5))
    one_hot = F.one_hot(label.squeeze(1), 3).movedim(-1, 1)
    torch.testing.assert_close(label_distance(logits, label), (logits.softmax(1) - one_hot).square().mean(1, True))
    divergence = F.kl_div(logits.log_softmax(1), torch.full_like(logits, 1 / 3), reduction="none").sum(1, True)
    torch.testing.assert_close(uniform_divergence(logits), divergence)


def test_same_student_twice_is_refused(make_network: Callable) -> None:
    network = make_network()
    with pytest.raises(ValueError, match="same object"):
        DiscrepancyCorrection(network, *metassl_losses(3), lambda step: 1.0, second_network=network)
