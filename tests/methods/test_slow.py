# SPDX-License-Identifier: Apache-2.0
"""Each method's total against a computation in plain loops, written from the papers' formulas."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

Voxel = list[float]
Logits = list[Voxel]
Thresholds = dict[str, Voxel]

PHI_UNLABELED = [math.exp(-((rank * 0.6) ** 3)) for rank in range(4)]
PHI_LABELED = [math.exp(-((rank * 0.3) ** 3)) for rank in range(4)]
WEIGHT = {
    "unlabeled": dict(zip(("UC", "US", "DC", "DS"), PHI_UNLABELED, strict=True)),
    "labeled": dict(zip(("UC", "US", "DS", "DC"), PHI_LABELED, strict=True)),
}


def voxels(logits: Tensor) -> Logits:
    """``(B, C, H, W)`` as a list of voxels."""
    return [
        [float(image[c, y, x]) for c in range(image.shape[0])]
        for image in logits.detach()
        for y in range(image.shape[1])
        for x in range(image.shape[2])
    ]


def softmax(voxel: Voxel) -> Voxel:
    exponentials = [math.exp(value) for value in voxel]
    return [value / sum(exponentials) for value in exponentials]


def top(voxel: Voxel) -> int:
    return max(range(len(voxel)), key=lambda c: voxel[c])


def move_thresholds(thresholds: Voxel, reference: Logits, keep: float = 0.99) -> None:
    for c in range(len(thresholds)):
        confidences = [softmax(voxel)[c] for voxel in reference if top(voxel) == c]
        if confidences:
            thresholds[c] = keep * thresholds[c] + (1 - keep) * sum(confidences) / len(confidences)


def partition(reference: Logits, others: list[int], thresholds: Voxel) -> list[str]:
    regions = []
    for voxel, other in zip(reference, others, strict=True):
        label = top(voxel)
        confident = softmax(voxel)[label] > thresholds[label]
        regions.append(("U" if label == other else "D") + ("C" if confident else "S"))
    return regions


def metassl_unlabeled(prediction: Logits, reference: Logits, thresholds: Voxel, seen: Counter) -> float:
    move_thresholds(thresholds, reference)
    regions = partition(reference, [top(voxel) for voxel in prediction], thresholds)
    seen.update(f"unlabeled {region}" for region in regions)
    weights = [WEIGHT["unlabeled"][region] for region in regions]
    total = 0.0
    for weight, p, q in zip(weights, prediction, reference, strict=True):
        total += weight * -math.log(softmax(p)[top(q)])
    return total / sum(weights)


def metassl_labeled(prediction: Logits, target: list[int], reference: Logits, gamma: Voxel, seen: Counter) -> float:
    move_thresholds(gamma, reference)
    regions = partition(reference, target, gamma)
    seen.update(f"labeled {region}" for region in regions)
    weights = [WEIGHT["labeled"][region] for region in regions]
    cross_entropy = 0.0
    for weight, p, y in zip(weights, prediction, target, strict=True):
        cross_entropy += weight * -math.log(softmax(p)[y])
    dice = 0.0
    for c in range(len(gamma)):
        upper = lower = 1e-5
        for weight, p, y in zip(weights, prediction, target, strict=True):
            upper += weight * 2 * (y == c) * softmax(p)[c]
            lower += weight * ((y == c) + softmax(p)[c])
        dice += upper / lower
    return cross_entropy / sum(weights) + 1 - dice / len(gamma)


def own_labeled(prediction: Logits, target: list[int]) -> float:
    cross_entropy = sum(-math.log(softmax(p)[y]) for p, y in zip(prediction, target, strict=True)) / len(target)
    dice = 0.0
    for c in range(3):
        upper = lower = 1e-5
        for p, y in zip(prediction, target, strict=True):
            upper += 2 * (y == c) * softmax(p)[c]
            lower += (y == c) + softmax(p)[c] ** 2
        dice += upper / lower
    return 0.5 * (cross_entropy + 1 - dice / 3)


def pseudo_label(prediction: Logits, reference: Logits) -> float:
    return sum(-math.log(softmax(p)[top(q)]) for p, q in zip(prediction, reference, strict=True)) / len(prediction)


def softmax_mse(prediction: Logits, reference: Logits) -> float:
    total = 0.0
    for p, q in zip(prediction, reference, strict=True):
        total += sum((a - b) ** 2 for a, b in zip(softmax(p), softmax(q), strict=True)) / len(p)
    return total / len(prediction)


OWN_UNLABELED = {"MeanTeacher": softmax_mse, "CrossPseudoSupervision": pseudo_label}


def slow_total(
    method: str, outputs: dict[str, tuple[Logits, Logits]], target: list[int], state: dict[str, Any], ramp: float
) -> float:
    """The total of one step from the logits of each network, ``(labeled, unlabeled)``."""
    kind, gamma, seen = state["kind"], state["thresholds"], state["seen"]

    def labeled(name: str, prediction: Logits, reference: Logits) -> float:
        if kind == "own":
            return own_labeled(prediction, target)
        return metassl_labeled(prediction, target, reference, gamma[f"labeled {name}"], seen)

    def unlabeled(name: str, prediction: Logits, reference: Logits) -> float:
        if kind == "own":
            return ramp * OWN_UNLABELED[method](prediction, reference)
        return ramp * metassl_unlabeled(prediction, reference, gamma[f"unlabeled {name}"], seen)

    if method == "Supervised":  # the network is its own reference
        prediction = outputs["network"][0]
        return labeled("network", prediction, prediction)
    if method == "MeanTeacher":
        student, teacher = outputs["network"], outputs["teacher"]
        return labeled("network", student[0], teacher[0]) + unlabeled("network", student[1], teacher[1])
    if method == "CrossPseudoSupervision":
        first, second = outputs["network"], outputs["second_network"]
        return (
            labeled("network", first[0], second[0])
            + unlabeled("network", first[1], second[1])
            + labeled("second_network", second[0], first[0])
            + unlabeled("second_network", second[1], first[1])
        )
    raise AssertionError(f"write the slow computation of {method}")


def sharpen(network: nn.Module) -> None:
    """Make logits large enough that confidences fall on both sides of the thresholds."""
    with torch.no_grad():
        network[-1].weight.mul_(2.5)


def test_total_of_three_steps_equals_the_slow_computation(
    row: Any, losses: str, make_method: Callable, batch: dict[str, dict[str, Tensor]], shake: Callable
) -> None:
    method = make_method(row, losses, ramp=lambda step: 0.3 + step, batch_norm=False, **row.without_noise).double()
    batch = {stream: {key: value.double() for key, value in data.items()} for stream, data in batch.items()}
    target = [int(y) for y in batch["labeled"]["label"].flatten()]
    names = ("network", *row.further_networks, *row.teachers)
    for name in names:
        if name in row.teachers:
            shake(getattr(method, name), 0.2)  # a teacher of its own, else it equals its student
        sharpen(getattr(method, name))
    seen: Counter = Counter()
    keys = [f"{stream} {name}" for stream in ("labeled", "unlabeled") for name in row.method.names[stream]]
    state = {"kind": losses, "thresholds": {key: [0.5] * 3 for key in keys}, "seen": seen}
    for step in range(3):
        outputs = {
            name: tuple(voxels(getattr(method, name)(batch[stream]["image"])) for stream in ("labeled", "unlabeled"))
            for name in names
        }
        terms, _ = method(batch, step)
        total = sum(term.item() for term in terms.values())
        assert total == pytest.approx(slow_total(row.method.__name__, outputs, target, state, 0.3 + step), rel=1e-6)
        for name in ("network", *row.further_networks):
            with torch.no_grad():
                getattr(method, name)[0].weight.add_(0.1)
    if losses == "metassl":
        streams = [stream for stream in ("labeled", "unlabeled") if row.method.names[stream]]
        assert set(seen) == {f"{stream} {region}" for stream in streams for region in ("UC", "US", "DC", "DS")}
