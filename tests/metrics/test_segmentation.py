# SPDX-License-Identifier: Apache-2.0
"""Segmentation metrics: definitions, units, empty-mask policy, label maps."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from monai.metrics.hausdorff_distance import compute_hausdorff_distance

from metassl_monai.metrics import METRIC_NAMES, segmentation_metrics, surface_distances

LabelMap = npt.NDArray[np.int64]

few = settings(max_examples=40, deadline=None, derandomize=True)
label_maps = arrays(np.int64, (5, 4, 3), elements=st.integers(0, 2))
DISTANCES = [name for name in METRIC_NAMES if name not in ("dice", "jaccard")]
SYMMETRIC = [name for name in METRIC_NAMES if not name.startswith("asd")]


def cube(start: int, shape: tuple[int, ...] = (5, 5, 5)) -> LabelMap:
    """A 3 x 3 x 3 cube of label 1 from ``start`` along the first axis."""
    labels = np.zeros(shape, dtype=np.int64)
    labels[start : start + 3, 1:4, 1:4] = 1
    return labels


def square_and_outlier() -> tuple[LabelMap, LabelMap]:
    """Truth: a 3 x 3 square (8 surface voxels). Prediction: the same and one voxel 10 voxels away from it."""
    truth = np.zeros((5, 16), dtype=np.int64)
    truth[1:4, 1:4] = 1
    prediction = truth.copy()
    prediction[2, 13] = 1
    return prediction, truth


def test_shifted_cubes_by_hand() -> None:
    metrics = segmentation_metrics(cube(0), cube(1), {1: "LV"}, spacing=(2.0, 1.0, 1.0))
    # 18 of 27 voxels in common. Of 26 surface voxels 9 are one step (2 mm) away, 1 is one step sideways (1 mm) away.
    expected = {"dice": 2 / 3, "jaccard": 0.5, "hd95_mm": 2.0, "asd_mm": 19 / 26, "assd_mm": 19 / 26}
    expected |= {"hd95_voxel": 1.0, "asd_voxel": 10 / 26, "assd_voxel": 10 / 26}
    assert metrics == {"LV": pytest.approx(expected)}


def test_hd95_pools_both_directions_and_so_differs_from_monai() -> None:
    prediction, truth = square_and_outlier()
    one, other = (torch.from_numpy(labels)[None, None].float() for labels in (prediction, truth))
    monai = compute_hausdorff_distance(one, other, include_background=True, percentile=95).item()
    ours = segmentation_metrics(prediction, truth, {1: "LV"})["LV"]["hd95_voxel"]
    # Distances: 8 zeros and a 10 forward, 8 zeros backward. Rank 0.95 * (n - 1), linear in between.
    assert monai == pytest.approx(6.0)  # 9 forward values: rank 7.6; the backward percentile is 0
    assert ours == pytest.approx(2.0)  # 17 pooled values: rank 15.2


def test_asd_is_directed_and_assd_averages_the_directions() -> None:
    prediction, truth = square_and_outlier()
    more = segmentation_metrics(prediction, truth, {1: "LV"})["LV"]
    less = segmentation_metrics(truth, prediction, {1: "LV"})["LV"]
    assert more["asd_voxel"] == pytest.approx(10 / 9)
    assert less["asd_voxel"] == 0.0  # a prediction that misses a part of the truth goes unpunished
    # Mean of the two means (10/9 and 0), not the mean of the 17 pooled distances.
    assert more["assd_voxel"] == less["assd_voxel"] == pytest.approx(5 / 9)


@few
@given(label_maps, label_maps)
def test_definitions_on_random_maps(prediction: LabelMap, truth: LabelMap) -> None:
    spacing = (3.0, 1.0, 0.5)
    for value, metrics in zip(
        (1, 2), segmentation_metrics(prediction, truth, {1: "a", 2: "b"}, spacing).values(), strict=True
    ):
        inside = [{tuple(index) for index in np.argwhere(labels == value).tolist()} for labels in (prediction, truth)]
        if all(inside):
            common, union = inside[0] & inside[1], inside[0] | inside[1]
            forward, backward = surface_distances(prediction == value, truth == value, spacing)
            assert metrics["dice"] == pytest.approx(2 * len(common) / (len(inside[0]) + len(inside[1])))
            assert metrics["jaccard"] == pytest.approx(len(common) / len(union))
            assert metrics["hd95_mm"] == pytest.approx(np.quantile([*forward, *backward], 0.95))
            assert metrics["asd_mm"] == pytest.approx(sum(forward) / len(forward))
            assert metrics["assd_mm"] == pytest.approx((forward.mean() + backward.mean()) / 2)


@few
@given(label_maps, label_maps)
def test_all_but_asd_are_symmetric(prediction: LabelMap, truth: LabelMap) -> None:
    labels, spacing = {1: "a", 2: "b"}, (3.0, 1.0, 0.5)
    one = segmentation_metrics(prediction, truth, labels, spacing)
    other = segmentation_metrics(truth, prediction, labels, spacing)
    for name in ("a", "b"):
        assert [one[name][key] for key in SYMMETRIC] == pytest.approx(
            [other[name][key] for key in SYMMETRIC], nan_ok=True
        )


@few
@given(label_maps, label_maps, st.floats(0.01, 100))
def test_only_mm_scale_with_the_spacing(prediction: LabelMap, truth: LabelMap, factor: float) -> None:
    one = segmentation_metrics(prediction, truth, {1: "a"}, (3.0, 1.0, 0.5))["a"]
    other = segmentation_metrics(prediction, truth, {1: "a"}, (3.0 * factor, factor, 0.5 * factor))["a"]
    scaled = {name: value * factor if name.endswith("_mm") else value for name, value in one.items()}
    assert other == pytest.approx(scaled, nan_ok=True)


def test_mm_equal_voxels_at_unit_spacing() -> None:
    metrics = segmentation_metrics(cube(0), cube(2), {1: "LV"}, (1.0, 1.0, 1.0))["LV"]
    for name in ("hd95", "asd", "assd"):
        assert metrics[f"{name}_mm"] == metrics[f"{name}_voxel"] > 0


def test_mm_are_nan_without_spacing() -> None:
    metrics = segmentation_metrics(cube(0), cube(1), {1: "LV"})["LV"]
    assert {name for name, value in metrics.items() if math.isnan(value)} == {"hd95_mm", "asd_mm", "assd_mm"}


def test_every_distance_has_its_unit_in_its_name() -> None:
    metrics = segmentation_metrics(cube(0), cube(1), {1: "LV"}, (1.0, 1.0, 1.0))["LV"]
    assert tuple(metrics) == METRIC_NAMES
    assert all(name.endswith(("_mm", "_voxel")) for name in DISTANCES)
    assert all(type(value) is float for value in metrics.values())


@pytest.mark.parametrize(
    ("prediction", "truth", "overlap"),
    [
        (cube(0), np.zeros_like(cube(0)), 0.0),
        (np.zeros_like(cube(0)), cube(0), 0.0),
        (cube(0) * 0, cube(0) * 0, math.nan),
    ],
    ids=["truth empty", "prediction empty", "both empty"],
)
def test_empty_mask_policy(prediction: LabelMap, truth: LabelMap, overlap: float) -> None:
    metrics = segmentation_metrics(prediction, truth, {1: "LV"}, (1.0, 1.0, 1.0))["LV"]
    assert [metrics["dice"], metrics["jaccard"]] == pytest.approx([overlap] * 2, nan_ok=True)
    assert all(math.isnan(metrics[name]) for name in DISTANCES)


def test_perfect_prediction() -> None:
    metrics = segmentation_metrics(cube(1), cube(1), {1: "LV"}, (1.0, 1.0, 1.0))["LV"]
    assert metrics == {name: float(name in ("dice", "jaccard")) for name in METRIC_NAMES}


def test_keys_from_json_background_and_unnamed_values() -> None:
    prediction, truth = cube(0), cube(1)
    truth[4, 4, 4] = 7  # no name, so no structure
    expected = segmentation_metrics(prediction, truth, {1: "LV"})
    assert list(segmentation_metrics(prediction, truth, {"0": "background", "3": "RV", "1": "LV"})) == ["RV", "LV"]
    assert segmentation_metrics(prediction, truth, {"0": "background", "1": "LV"})["LV"] == pytest.approx(
        expected["LV"], nan_ok=True
    )


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float32])
def test_torch_tensors(dtype: torch.dtype) -> None:
    prediction, truth = (torch.from_numpy(labels).to(dtype) for labels in (cube(0), cube(1)))
    spacing = (2.0, 1.0, 1.0)
    assert segmentation_metrics(prediction, truth, {1: "LV"}, spacing) == segmentation_metrics(
        cube(0), cube(1), {1: "LV"}, spacing
    )


def test_errors_come_before_any_structure_is_looked_at() -> None:
    empty = np.zeros((4, 4), dtype=np.int64)
    with pytest.raises(ValueError, match=r"shape \(4, 4\) but truth has shape \(4,\).*resample"):
        segmentation_metrics(empty, empty[0], {1: "LV"})
    with pytest.raises(ValueError, match="give 2 numbers in mm"):
        segmentation_metrics(empty, empty, {1: "LV"}, (1.0,))
    with pytest.raises(ValueError, match="not a positive finite number"):
        segmentation_metrics(empty, empty, {1: "LV"}, (1.0, 0.0))


def test_a_name_given_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="names a structure twice: give every label value a name"):
        segmentation_metrics(cube(0), cube(1), {1: "LV", 2: "LV"})
