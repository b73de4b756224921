# SPDX-License-Identifier: Apache-2.0
"""Flips, turns and affine maps of whole batches: one matrix a sample, one resampling for all of them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Draw", "affine_maps", "flips", "one_of", "quarter_turns", "resample", "unmoved"]

Matrices = np.ndarray
"""``(B, d + 1, d + 1)``: homogeneous maps from voxels of the result to those of the sample, counted from the center."""

Draw = Callable[[np.random.RandomState, int, Sequence[int]], Matrices]
"""Draws the matrices of ``number`` samples of a spatial shape."""


def unmoved(random: np.random.RandomState, number: int, shape: Sequence[int]) -> Matrices:
    """Leave every sample where it is."""
    return np.tile(np.eye(len(shape) + 1), (number, 1, 1))


def flips(prob: float, axes: Sequence[int]) -> Draw:
    """Flip ``axes`` of a sample together, with probability ``prob``."""

    def draw(random: np.random.RandomState, number: int, shape: Sequence[int]) -> Matrices:
        matrices = unmoved(random, number, shape)
        flipped = random.rand(number) < prob
        for axis in axes:
            matrices[flipped, axis, axis] = -1
        return matrices

    return draw


def quarter_turns(prob: float, max_k: int, axes: Sequence[int]) -> Draw:
    """Turn a sample by 1 to ``max_k`` right angles in the plane of two axes, with probability ``prob``."""
    first, second = axes

    def draw(random: np.random.RandomState, number: int, shape: Sequence[int]) -> Matrices:
        if shape[first] != shape[second]:
            raise ValueError(
                f"samples of shape {tuple(shape)} cannot be turned by right angles in axes {tuple(axes)}: "
                "these sides must be equal in a batch."
            )
        turns = np.where(random.rand(number) < prob, random.randint(max_k, size=number) + 1, 0)
        cosine, sine = np.array([1, 0, -1, 0])[turns], np.array([0, 1, 0, -1])[turns]
        matrices = unmoved(random, number, shape)
        matrices[:, first, first] = matrices[:, second, second] = cosine
        matrices[:, first, second], matrices[:, second, first] = sine, -sine
        return matrices

    return draw


def affine_maps(
    prob: float,
    rotate: Sequence[Sequence[float]] = (),
    shear: Sequence[Sequence[float]] = (),
    translate: Sequence[Sequence[float]] = (),
    scale: Sequence[Sequence[float]] = (),
) -> Draw:
    """Rotate, shear, move and scale a sample, in MONAI's order and units, with probability ``prob``.

    Args:
        prob: probability of a sample.
        rotate: smallest and largest angle in radians: one in 2D, up to three in 3D, about the axes x, y, z in turn.
        shear: smallest and largest coefficients, as ``monai.transforms.utils.create_shear`` takes them.
        translate: smallest and largest move of each axis in voxels.
        scale: smallest and largest factor of each axis.
    """

    def draw(random: np.random.RandomState, number: int, shape: Sequence[int]) -> Matrices:
        dims = len(shape)
        unit = unmoved(random, number, shape)
        moved = unit.copy()
        planes = [(0, 1)] if dims == 2 else [(1, 2), (2, 0), (0, 1)]
        for (first, second), angle in zip(planes, _uniform(random, number, rotate), strict=False):
            turn = unit.copy()
            turn[:, first, first] = turn[:, second, second] = np.cos(angle)
            turn[:, second, first], turn[:, first, second] = np.sin(angle), -np.sin(angle)
            moved = moved @ turn
        sheared = unit.copy()
        pairs = [(i, j) for i in range(dims) for j in range(dims) if i != j]
        for (row, column), coefficient in zip(pairs, _uniform(random, number, shear), strict=False):
            step = unit.copy()
            step[:, row, column] = coefficient
            sheared = step @ sheared
        shift, stretch = unit.copy(), unit.copy()
        for axis, voxels in zip(range(dims), _uniform(random, number, translate), strict=False):
            shift[:, axis, dims] = voxels
        for axis, factor in zip(range(dims), _uniform(random, number, scale), strict=False):
            stretch[:, axis, axis] = factor
        moved = moved @ sheared @ shift @ stretch
        return np.where((random.rand(number) < prob)[:, None, None], moved, unit)

    return draw


def one_of(draws: Sequence[Draw], weights: Sequence[float]) -> Draw:
    """Draw each sample's matrix by one of ``draws``."""

    def draw(random: np.random.RandomState, number: int, shape: Sequence[int]) -> Matrices:
        every = np.stack([each(random, number, shape) for each in draws])
        return every[random.choice(len(draws), size=number, p=weights), np.arange(number)]

    return draw


def resample(
    batch: Mapping[Hashable, Tensor], matrices: Matrices, modes: Mapping[Hashable, str], padding: str
) -> dict[Hashable, Tensor]:
    """Resample the keys of ``modes``, each ``(B, C, *spatial)``, by one map a sample.

    Args:
        batch: the batch; other keys go along.
        matrices: see :data:`Matrices`.
        modes: ``"bilinear"`` or ``"nearest"`` by key.
        padding: ``"zeros"``, ``"border"`` or ``"reflection"``.
    """
    keys = [key for key in modes if key in batch]
    if not keys:
        return dict(batch)
    first = batch[keys[0]]
    shape = first.shape[2:]
    # torch counts from -1 to 1 over a side and names the last axis first
    half = np.array(shape) / 2
    maps = matrices[:, :-1] * np.append(half, 1) / half[:, None]
    order = [*range(len(shape) - 1, -1, -1), len(shape)]
    theta = torch.from_numpy(maps[:, order[:-1]][:, :, order].astype(np.float32)).to(first.device, non_blocking=True)
    grid = F.affine_grid(theta, [len(first), 1, *shape], align_corners=False)
    moved = {
        key: F.grid_sample(batch[key].float(), grid, mode=modes[key], padding_mode=padding, align_corners=False)
        for key in keys
    }
    return {**batch, **moved}


def _uniform(random: np.random.RandomState, number: int, ranges: Sequence[Sequence[float]]) -> list[np.ndarray]:
    return [random.uniform(low, high, number) for low, high in ranges]
