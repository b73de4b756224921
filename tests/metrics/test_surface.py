# SPDX-License-Identifier: Apache-2.0
"""Surface distances against brute force, hand-computed values and their invariances."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from monai.metrics.surface_distance import compute_average_surface_distance

from metassl_monai.metrics import surface_distances

Mask = npt.NDArray[np.bool_]

few = settings(max_examples=40, deadline=None, derandomize=True)
spacings = st.sampled_from([(1.0, 1.0, 1.0), (10.0, 1.5, 1.5), (0.7, 2.0, 1.3)])
masks = arrays(np.bool_, (4, 5, 3)).filter(lambda mask: bool(mask.any()))


def slow_surface(mask: Mask) -> list[tuple[int, ...]]:
    """Voxels with a face neighbor outside the mask or the array, one by one."""
    inside = {tuple(int(i) for i in index) for index in np.argwhere(mask)}
    steps = [tuple(sign * (a == axis) for a in range(mask.ndim)) for axis in range(mask.ndim) for sign in (-1, 1)]

    def is_surface(voxel: tuple[int, ...]) -> bool:
        return any(tuple(i + s for i, s in zip(voxel, step, strict=True)) not in inside for step in steps)

    return sorted(filter(is_surface, inside))


def slow_distances(source: Mask, target: Mask, spacing: Sequence[float]) -> npt.NDArray[np.float64]:
    """Every pair of surface voxels; needs neither a distance transform nor an erosion."""
    start, end = (np.array(slow_surface(mask)) * np.asarray(spacing) for mask in (source, target))
    return np.asarray(np.sqrt(((start[:, None] - end[None]) ** 2).sum(-1)).min(1))


def blob(seed: int, shape: tuple[int, ...]) -> Mask:
    """A random union of boxes, with a solid interior and possibly on the border."""
    generator = np.random.default_rng(seed)
    mask = np.zeros(shape, dtype=bool)
    for _ in range(3):
        corner = [int(generator.integers(0, size - 1)) for size in shape]
        mask[tuple(slice(start, start + int(generator.integers(2, 6))) for start in corner)] = True
    return mask


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(
    ("shape", "spacing"),
    [((12, 11), None), ((12, 11), (0.5, 2.0)), ((8, 9, 7), None), ((8, 9, 7), (1.25, 1.25, 10.0))],
)
def test_equals_brute_force_on_blobs(seed: int, shape: tuple[int, ...], spacing: tuple[float, ...] | None) -> None:
    prediction, truth = blob(seed, shape), blob(seed + 100, shape)
    forward, backward = surface_distances(prediction, truth, spacing)
    size = spacing or (1.0,) * len(shape)
    np.testing.assert_allclose(forward, slow_distances(prediction, truth, size))
    np.testing.assert_allclose(backward, slow_distances(truth, prediction, size))


@few
@given(masks, masks, spacings)
def test_equals_brute_force_on_noise(prediction: Mask, truth: Mask, spacing: tuple[float, ...]) -> None:
    forward, backward = surface_distances(prediction, truth, spacing)
    np.testing.assert_allclose(forward, slow_distances(prediction, truth, spacing))
    np.testing.assert_allclose(backward, slow_distances(truth, prediction, spacing))


def test_shifted_cubes_by_hand() -> None:
    prediction, truth = np.zeros((5, 5, 5), dtype=bool), np.zeros((5, 5, 5), dtype=bool)
    prediction[0:3, 1:4, 1:4], truth[1:4, 1:4, 1:4] = True, True
    # 26 of 27 voxels are surface. The 9 voxels of the outer face are one step (2 mm) away; the middle of the opposite
    # face lies on the other cube's inner voxel, one step sideways (1 mm) from its surface; the rest coincide.
    for distances in surface_distances(prediction, truth, spacing=(2.0, 1.0, 1.0)):
        assert sorted(distances.tolist()) == [0.0] * 16 + [1.0] + [2.0] * 9


def test_shifted_squares_by_hand() -> None:
    prediction, truth = np.zeros((4, 8), dtype=bool), np.zeros((4, 8), dtype=bool)
    prediction[0:2, 0:2], truth[0:2, 5:7] = True, True
    for distances in surface_distances(prediction, truth):
        assert sorted(distances.tolist()) == [4.0, 4.0, 5.0, 5.0]


def test_single_voxels_use_the_spacing_of_their_axis() -> None:
    prediction, truth = np.zeros((6, 6), dtype=bool), np.zeros((6, 6), dtype=bool)
    prediction[0, 0], truth[3, 4] = True, True
    assert surface_distances(prediction, truth)[0].tolist() == [5.0]
    assert surface_distances(prediction, truth, (4.0, 1.25))[0].tolist() == [13.0]


def test_border_of_the_array_is_outside() -> None:
    full, corner = np.ones((5, 5), dtype=bool), np.zeros((5, 5), dtype=bool)
    corner[0, 0] = True
    assert len(surface_distances(full, corner)[0]) == 16  # the frame, not the inner 3 x 3


@few
@given(masks, masks, spacings)
def test_swapping_the_masks_swaps_the_directions(prediction: Mask, truth: Mask, spacing: tuple[float, ...]) -> None:
    forward, backward = surface_distances(prediction, truth, spacing)
    swapped_forward, swapped_backward = surface_distances(truth, prediction, spacing)
    np.testing.assert_array_equal(forward, swapped_backward)
    np.testing.assert_array_equal(backward, swapped_forward)


@few
@given(masks, masks, spacings, st.floats(0.01, 100))
def test_distances_are_linear_in_the_spacing(
    prediction: Mask, truth: Mask, spacing: tuple[float, ...], factor: float
) -> None:
    scaled = surface_distances(prediction, truth, [factor * size for size in spacing])
    for one, other in zip(surface_distances(prediction, truth, spacing), scaled, strict=True):
        np.testing.assert_allclose(factor * one, other)


@few
@given(masks, masks, spacings, st.tuples(*[st.integers(0, 4)] * 3))
def test_translation_does_not_matter(
    prediction: Mask, truth: Mask, spacing: tuple[float, ...], offset: tuple[int, ...]
) -> None:
    # Offset 0 and 4 put the masks against the border of the larger array, the original array fits them tightly.
    place = tuple(slice(start, start + size) for start, size in zip(offset, prediction.shape, strict=True))
    moved = [np.zeros([size + 4 for size in prediction.shape], dtype=bool) for _ in range(2)]
    moved[0][place], moved[1][place] = prediction, truth
    here, there = surface_distances(prediction, truth, spacing), surface_distances(moved[0], moved[1], spacing)
    for one, other in zip(here, there, strict=True):
        np.testing.assert_allclose(one, other)


@few
@given(masks)
def test_distance_to_itself_is_zero(mask: Mask) -> None:
    for distances in surface_distances(mask, mask, (3.0, 1.0, 0.5)):
        assert not distances.any()


def test_empty_masks() -> None:
    empty, some = np.zeros((4, 4), dtype=bool), np.eye(4, dtype=bool)
    assert [len(distances) for distances in surface_distances(empty, empty)] == [0, 0]
    forward, backward = surface_distances(some, empty)
    assert forward.tolist() == [np.inf] * 4
    assert backward.tolist() == []


def test_torch_tensors_and_inputs_left_alone() -> None:
    prediction, truth = blob(1, (9, 9)), blob(2, (9, 9))
    copies = prediction.copy(), truth.copy()
    expected = surface_distances(prediction, truth)
    actual = surface_distances(torch.from_numpy(prediction), torch.from_numpy(truth))
    for one, other in itertools.chain(
        zip(expected, actual, strict=True), zip(copies, (prediction, truth), strict=True)
    ):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("spacing", [None, (1.25, 1.5, 10.0)])
def test_mean_forward_distance_agrees_with_monai(seed: int, spacing: tuple[float, ...] | None) -> None:
    prediction, truth = blob(seed, (8, 9, 7)), blob(seed + 50, (8, 9, 7))
    one, other = (torch.from_numpy(mask)[None, None].float() for mask in (prediction, truth))
    monai = compute_average_surface_distance(one, other, include_background=True, symmetric=False, spacing=spacing)
    assert surface_distances(prediction, truth, spacing)[0].mean() == pytest.approx(monai.item(), rel=1e-5)


@pytest.mark.parametrize(
    ("shapes", "spacing", "message"),
    [
        (((4, 4), (4, 5)), None, r"prediction has shape \(4, 4\) but truth has shape \(4, 5\): resample"),
        (((1, 1, 4, 4), (1, 1, 4, 4)), None, r"shape \(1, 1, 4, 4\), which is neither 2D nor 3D: pass one case"),
        (((4, 4), (4, 4)), (1.0, 1.0, 1.0), r"spacing \(1.0, 1.0, 1.0\) does not match .* give 2 numbers in mm"),
        (((4, 4), (4, 4)), (1.0, 0.0), r"spacing \(1.0, 0.0\) has an entry that is not a positive .* give the voxel"),
        (((4, 4), (4, 4)), (1.0, -1.0), "not a positive finite number"),
        (((4, 4), (4, 4)), (1.0, float("nan")), "not a positive finite number"),
        (((4, 4), (4, 4)), (1.0, float("inf")), "not a positive finite number"),
    ],
)
def test_errors_name_what_and_remedy(
    shapes: tuple[tuple[int, ...], tuple[int, ...]], spacing: tuple[float, ...] | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        surface_distances(np.ones(shapes[0], dtype=bool), np.ones(shapes[1], dtype=bool), spacing)
