# SPDX-License-Identifier: Apache-2.0
"""MONAI's random dictionary transforms, each as a step of a whole batch."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import singledispatch
from typing import Any

import numpy as np
from monai.transforms import (
    Compose,
    EnsureTyped,
    Identityd,
    OneOf,
    RandAdjustContrastd,
    RandAffined,
    RandFlipd,
    RandGaussianNoised,
    RandGaussianSmoothd,
    RandRotate90d,
    RandRotated,
)
from torch import Tensor

from . import batch_intensity, batch_spatial
from .batch_changes import batch_change
from .views import WeakStrongViewsd

__all__ = ["Batch", "Move", "Step", "batch_step"]

Batch = dict[Hashable, Tensor]
Step = Callable[[np.random.RandomState, Batch], Batch]


class Move:
    """A spatial step: how its matrices are drawn, and, where it interpolates, how."""

    def __init__(
        self, keys: Sequence[Hashable], draw: batch_spatial.Draw, modes: Sequence[str] = (), padding: str = ""
    ) -> None:
        self.keys, self.draw, self.modes, self.padding = tuple(keys), draw, tuple(modes), padding


def _change(keys: Sequence[Hashable], change: batch_intensity.Change) -> Step:
    def step(random: np.random.RandomState, batch: Batch) -> Batch:
        return {**batch, **{key: change(random, batch[key].float()) for key in keys if key in batch}}

    return step


@singledispatch
def batch_step(transform: Any) -> Move | Step:
    """Return what does to a batch what a random dictionary transform of MONAI does to a sample.

    Raises:
        ValueError: when the transform, or an option of it, is not known for batches.
    """
    name = type(transform).__name__
    raise ValueError(f"{name} is not known for batches: leave it out, or load the data without device_data.json.")


@batch_step.register
def _(transform: Identityd) -> Move:
    return Move(transform.keys, batch_spatial.unmoved)


@batch_step.register
def _(transform: RandFlipd) -> Move:
    axis = transform.flipper.spatial_axis
    if axis is None:
        raise ValueError("RandFlipd without spatial_axis is not known for batches: name its axes.")
    return Move(transform.keys, batch_spatial.flips(transform.prob, [axis] if isinstance(axis, int) else axis))


@batch_step.register
def _(transform: RandRotate90d) -> Move:
    return Move(transform.keys, batch_spatial.quarter_turns(transform.prob, transform.max_k, transform.spatial_axes))


@batch_step.register
def _(transform: RandRotated) -> Move:
    turn = transform.rand_rotate
    if not turn.keep_size or any(transform.align_corners):
        raise ValueError("RandRotated with keep_size=False or align_corners=True is not known for batches.")
    ranges = [turn.range_x, turn.range_y, turn.range_z]
    return _interpolating(transform, batch_spatial.affine_maps(transform.prob, rotate=ranges))


@batch_step.register
def _(transform: RandAffined) -> Move:
    if transform.rand_affine.spatial_size is not None:
        raise ValueError("RandAffined with spatial_size is not known for batches: crop before it.")
    grid = transform.rand_affine.rand_affine_grid
    ranges = {
        "rotate": _between(grid.rotate_range),
        "shear": _between(grid.shear_range),
        "translate": _between(grid.translate_range),
        "scale": [(1 + low, 1 + high) for low, high in _between(grid.scale_range)],
    }
    return _interpolating(transform, batch_spatial.affine_maps(transform.prob, **ranges))


@batch_step.register
def _(transform: Compose) -> Move | Step:
    moves = [batch_step(each) for each in transform.flatten().transforms if not isinstance(each, EnsureTyped)]
    if not all(isinstance(move, Move) and not move.modes for move in moves):
        raise ValueError("a Compose inside OneOf is known for batches where it only flips and turns by right angles.")

    def draw(random: np.random.RandomState, number: int, shape: Sequence[int]) -> np.ndarray:
        matrices = batch_spatial.unmoved(random, number, shape)
        for move in moves:
            matrices = matrices @ move.draw(random, number, shape)  # type: ignore[union-attr]
        return matrices

    return Move(moves[0].keys, draw)  # type: ignore[union-attr]


@batch_step.register
def _(transform: OneOf) -> Move:
    moves = [batch_step(each) for each in transform.transforms]
    interpolating = [move for move in moves if isinstance(move, Move) and move.modes]
    if not all(isinstance(move, Move) for move in moves) or len(interpolating) > 1:
        raise ValueError("OneOf is known for batches where it moves samples, and one of its transforms interpolates.")
    how = (interpolating[0].modes, interpolating[0].padding) if interpolating else ()
    draws = [move.draw for move in moves]  # type: ignore[union-attr]
    return Move(moves[0].keys, batch_spatial.one_of(draws, transform.weights), *how)  # type: ignore[union-attr]


@batch_step.register
def _(transform: RandAdjustContrastd) -> Step:
    adjuster = transform.adjuster
    if adjuster.invert_image or adjuster.retain_stats:
        raise ValueError("RandAdjustContrastd with invert_image or retain_stats is not known for batches.")
    return _change(transform.keys, batch_intensity.contrast(transform.prob, adjuster.gamma))


@batch_step.register
def _(transform: RandGaussianSmoothd) -> Step:
    return _change(transform.keys, batch_change(transform.rand_smooth, transform.prob))


@batch_step.register
def _(transform: RandGaussianNoised) -> Step:
    return _change(transform.keys, batch_change(transform.rand_gaussian_noise, transform.prob))


@batch_step.register
def _(transform: WeakStrongViewsd) -> Step:
    strong = transform.views.strong
    if transform.views.weak is not None or not isinstance(strong, Compose):
        raise ValueError(
            "WeakStrongViewsd with a weak view, or a strong one that is no Compose, is not known for batches."
        )
    changes = [batch_change(each, each.prob) for each in strong.transforms]

    def step(random: np.random.RandomState, batch: Batch) -> Batch:
        views: Batch = {}
        for key in transform.keys:
            view = batch[key].float()
            for change in changes:
                view = change(random, view)
            views[f"{key}_{transform.strong_postfix}"] = view
        return {**batch, **views}

    return step


def _interpolating(transform: RandRotated | RandAffined, draw: batch_spatial.Draw) -> Move:
    paddings = {str(padding) for padding in transform.padding_mode}
    if len(paddings) > 1:
        raise ValueError(f"{type(transform).__name__} with several padding modes is not known for batches.")
    return Move(transform.keys, draw, [str(mode) for mode in transform.mode], paddings.pop())


def _between(ranges: Sequence[Any]) -> list[tuple[float, float]]:
    known = [each for each in ranges if each is not None]
    return [tuple(each) if isinstance(each, Sequence) else (-each, each) for each in known]
