# SPDX-License-Identifier: Apache-2.0
"""Confidence measures: worked numbers, their two ends, and the closed forms for two classes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from metassl_monai.losses import FixedThreshold, Quadripartition, Region
from metassl_monai.losses.confidences import CONFIDENCES

DISPERSIONS = ["mad", "std", "variance"]


def argmax(logits: Tensor) -> Tensor:
    return logits.max(dim=1, keepdim=True).indices


def random_logits(classes: int, seed: int = 0) -> Tensor:
    return 2 * torch.randn(2, classes, 3, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_four_measures():
    assert set(CONFIDENCES) == {"probability", *DISPERSIONS}


@pytest.mark.parametrize(("name", "expected"), [("probability", 0.7), ("variance", 0.36), ("std", 0.6), ("mad", 0.6)])
def test_worked_example(name, expected):
    logits = torch.tensor([0.7, 0.1, 0.1, 0.1]).log().reshape(1, 4, 1)
    assert CONFIDENCES[name](logits, argmax(logits)).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", DISPERSIONS)
@pytest.mark.parametrize("classes", [2, 3, 5, 8])
def test_one_hot_is_one_and_uniform_is_zero(name, classes):
    logits = torch.zeros(1, classes, 2)
    logits[0, 1, 0] = 200.0
    confidence = CONFIDENCES[name](logits, argmax(logits)).flatten()
    assert confidence.tolist() == pytest.approx([1, 0], abs=1e-6)


@pytest.mark.parametrize("classes", [2, 3, 5, 8])
def test_probability_of_one_hot_is_one_and_of_uniform_one_over_classes(classes):
    logits = torch.zeros(1, classes, 2)
    logits[0, 1, 0] = 200.0
    confidence = CONFIDENCES["probability"](logits, argmax(logits)).flatten()
    assert confidence.tolist() == pytest.approx([1, 1 / classes], abs=1e-6)


def test_two_classes_have_closed_forms():
    logits = random_logits(2)
    margin = 2 * logits.softmax(dim=1).max(dim=1, keepdim=True).values - 1
    for name, expected in {"std": margin, "mad": margin, "variance": margin**2}.items():
        torch.testing.assert_close(CONFIDENCES[name](logits, argmax(logits)), expected)


@pytest.mark.parametrize("classes", [2, 3, 6])
def test_closed_forms_agree_with_loops(classes):
    logits = random_logits(classes, seed=classes)
    p = logits.softmax(dim=1)
    for b, i, j in [(0, 0, 0), (1, 2, 3), (0, 1, 2)]:
        voxel = p[b, :, i, j].tolist()
        mean = 1 / classes
        variance = classes**2 / (classes - 1) * sum((v - mean) ** 2 for v in voxel) / classes
        mad = classes**2 / (2 * (classes - 1)) * sum(abs(v - mean) for v in voxel) / classes
        expected = {"probability": max(voxel), "variance": variance, "std": variance**0.5, "mad": mad}
        for name, value in expected.items():
            assert CONFIDENCES[name](logits, argmax(logits))[b, 0, i, j].item() == pytest.approx(value, abs=1e-12)


def test_probability_is_that_of_the_label_and_dispersions_ignore_it():
    logits = random_logits(4)
    label = torch.full((2, 1, 3, 4), 2)
    torch.testing.assert_close(CONFIDENCES["probability"](logits, label), logits.softmax(dim=1)[:, 2:3])
    for name in DISPERSIONS:
        torch.testing.assert_close(CONFIDENCES[name](logits, label), CONFIDENCES[name](logits, argmax(logits)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_no_label_is_the_likeliest_one(dtype):
    logits = torch.cat([random_logits(4), 100 * random_logits(4), random_logits(4).round()]).to(dtype)  # and ties
    probability = CONFIDENCES["probability"]
    assert torch.equal(probability(logits, None), probability(logits, argmax(logits)))


@pytest.mark.parametrize("name", sorted(CONFIDENCES))
@pytest.mark.parametrize(
    ("dtype", "computed"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_shape_range_and_precision(name, dtype, computed):
    logits = random_logits(3).to(dtype)
    confidence = CONFIDENCES[name](logits, argmax(logits))
    assert confidence.shape == (2, 1, 3, 4)
    assert confidence.dtype == computed
    assert confidence.min() >= 0
    assert confidence.max() <= 1 + 1e-6
    torch.testing.assert_close(confidence, CONFIDENCES[name](logits.to(computed), argmax(logits)))


@pytest.mark.parametrize(("name", "value"), [("probability", 0.7), ("variance", 0.36), ("std", 0.6), ("mad", 0.6)])
def test_quadripartition_uses_the_named_measure(name, value):
    logits = torch.tensor([0.7, 0.1, 0.1, 0.1]).log().reshape(1, 4, 1)
    for threshold, expected in ((value - 0.01, Region.UC), (value + 0.01, Region.US)):
        regions = Quadripartition(4, FixedThreshold(threshold), confidence=name)(logits, argmax(logits))
        assert regions.item() == expected
