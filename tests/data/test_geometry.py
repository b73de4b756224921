# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from metassl_monai.data.geometry import SAME_GRID, grid_distance

AFFINE = np.diag([1.5, 1.5, 8.0, 1.0])


def shifted(mm: float, axis: int = 0) -> np.ndarray:
    affine = AFFINE.copy()
    affine[axis, 3] = mm
    return affine


@pytest.mark.parametrize(("mm", "axis", "voxels"), [(0.3, 0, 0.2), (0.3, 2, 0.0375), (-1.5, 1, 1.0)])
def test_a_shift_is_told_in_voxels_of_its_axis(mm: float, axis: int, voxels: float) -> None:
    assert grid_distance(AFFINE, shifted(mm, axis), (32, 32, 3)) == pytest.approx(voxels)


def test_a_scale_counts_at_the_far_corner_and_not_as_an_entry_of_the_matrix() -> None:
    scaled = np.diag([1.5002, 1.5, 8.0, 1.0])  # 0.0002 mm a voxel is nothing for 32 of them and 0.07 voxel for 512
    assert grid_distance(AFFINE, scaled, (32, 32, 3)) < SAME_GRID < grid_distance(AFFINE, scaled, (512, 512, 3))


def test_the_thickness_of_a_single_slice_counts() -> None:
    assert grid_distance(AFFINE, np.diag([1.5, 1.5, 4.0, 1.0]), (32, 32, 1)) == pytest.approx(0.25)


def test_turning_both_changes_nothing() -> None:
    c, s = np.cos(0.4), np.sin(0.4)
    turn = np.array([[c, -s, 0, 30], [s, c, 0, -7], [0, 0, 1, 2], [0, 0, 0, 1]])
    expected = grid_distance(AFFINE, shifted(0.1), (32, 32, 3))
    assert grid_distance(turn @ AFFINE, turn @ shifted(0.1), (32, 32, 3)) == pytest.approx(expected)
