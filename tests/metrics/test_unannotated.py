# SPDX-License-Identifier: Apache-2.0
"""Voxels that nobody annotated are left out of prediction and truth: by hand, and voxel by voxel."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from metassl_monai.handlers import SubjectDice
from metassl_monai.ignore import IGNORE
from metassl_monai.metrics import dice_by_structure, segmentation_metrics, surface_distances
from metassl_monai.metrics.segmentation import METRIC_NAMES

NAMES = {1: "RV", 2: "LV"}


def maps(seed: int, shape: tuple[int, ...] = (7, 6, 5)) -> tuple[np.ndarray, np.ndarray]:
    """A prediction, and a truth of which every third slice is annotated, and of the middle one a part only."""
    random = np.random.default_rng(seed)
    prediction, truth = random.integers(0, 3, (2, *shape))
    prediction[1:5, 1:5], truth[1:6, 2:5] = 1, 1
    truth[..., np.arange(shape[-1]) % 3 != 1] = IGNORE
    truth[:3, :, 1] = IGNORE
    return prediction, truth


def slow_surface(mask: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Voxels of a mask beside a known voxel that is not in it, or at the border of the array."""
    found = []
    for voxel in map(tuple, np.argwhere(mask)):
        for axis, step in itertools.product(range(mask.ndim), (-1, 1)):
            beside = tuple(i + step * (a == axis) for a, i in enumerate(voxel))
            outside = any(i < 0 or i >= size for i, size in zip(beside, mask.shape, strict=True))
            if outside or (known[beside] and not mask[beside]):
                found.append(voxel)
                break
    return np.array(found)


@pytest.mark.parametrize("seed", range(5))
def test_metrics_equal_those_counted_on_annotated_voxels(seed: int) -> None:
    prediction, truth = maps(seed)
    known, spacing = truth != IGNORE, np.array([1.5, 0.7, 4.0])
    metrics = segmentation_metrics(prediction, truth, NAMES, spacing.tolist())
    for value, name in NAMES.items():
        pairs = list(zip(prediction[known] == value, truth[known] == value, strict=True))
        both, one = (sum(map(rule, pairs)) for rule in (all, any))
        forward, backward = (slow_surface((labels == value) & known, known) * spacing for labels in (prediction, truth))
        distances = np.sqrt(((forward[:, None] - backward[None]) ** 2).sum(-1))
        near, far = distances.min(1), distances.min(0)
        expected = {
            "dice": 2 * both / (both + one),
            "jaccard": both / one,
            "hd95_mm": np.percentile([*near, *far], 95),
            "asd_mm": near.mean(),
            "assd_mm": (near.mean() + far.mean()) / 2,
        }
        assert {key: metrics[name][key] for key in expected} == pytest.approx(expected)
        assert dice_by_structure(prediction, truth, NAMES)[name] == metrics[name]["dice"]


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_what_is_predicted_there_does_not_matter(dtype: type) -> None:
    prediction, truth = maps(0)
    before = segmentation_metrics(prediction.astype(dtype), truth, NAMES)
    prediction[truth == IGNORE] = 2
    assert segmentation_metrics(prediction.astype(dtype), truth, NAMES) == before


def test_the_last_annotated_slice_is_no_surface_of_the_structure() -> None:
    """A 3 x 3 x 3 cube of which the middle slice is annotated: its rim is the surface, its middle is not."""
    cube = np.zeros((5, 5, 5), bool)
    cube[1:4, 1:4, 1:4] = True
    missing = np.ones_like(cube)
    missing[..., 2] = False
    forward, backward = surface_distances(cube & ~missing, cube & ~missing, missing=missing)
    assert len(forward) == len(backward) == 8


def test_a_structure_without_a_known_border_has_no_distances() -> None:
    truth = np.full((5, 5), IGNORE)
    truth[2, 2:4] = 1
    metrics = segmentation_metrics(np.ones((5, 5), int), truth, {1: "LV"}, (1.0, 1.0))["LV"]
    assert metrics["dice"] == 1
    assert all(math.isnan(metrics[name]) for name in METRIC_NAMES if name not in ("dice", "jaccard"))


def test_nothing_annotated_is_nothing_measured() -> None:
    metrics = segmentation_metrics(np.ones((4, 4), int), np.full((4, 4), IGNORE), {1: "LV"}, (1.0, 1.0))["LV"]
    assert all(map(math.isnan, metrics.values()))


def test_a_validation_counts_annotated_voxels_alone() -> None:
    metric = SubjectDice({"0": "background", "1": "RV"})
    truth = MetaTensor(torch.tensor([[[1.0, 1.0, 0.0, IGNORE, IGNORE]]]))
    metric.update((torch.tensor([[[1.0, 0.0, 0.0, 1.0, 1.0]]]), truth, "a"))
    assert metric.compute()["RV"] == pytest.approx(2 / 3)
