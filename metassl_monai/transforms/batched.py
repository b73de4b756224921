# SPDX-License-Identifier: Apache-2.0
"""MONAI's random dictionary transforms, applied to whole batches where they lie."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial, singledispatch
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
    RandGaussianNoise,
    RandGaussianNoised,
    RandGaussianSmooth,
    RandGaussianSmoothd,
    Randomizable,
    RandRotate90d,
    RandRotated,
    RandScaleIntensityFixedMean,
    RandSpatialCropd,
    RandStdShiftIntensity,
)
from torch import Tensor

from . import batch_intensity, batch_spatial
from .views import RandCutout, WeakStrongViewsd

__all__ = ["BatchTransform"]

Batch = dict[Hashable, Tensor]
Step = Callable[[np.random.RandomState, Batch], Batch]


class BatchTransform(Randomizable):
    """Do to a batch, ``(B, C, *spatial)`` a key, what a chain of MONAI's random transforms does to each sample.

    Every sample draws for itself, from the same distributions as in the chain, though other numbers. Flips, turns and
    at most one affine map in a row are one resampling. Numbers come from NumPy and are sent to the device, noise is
    made there; nothing waits for the device.

    Args:
        transform: a transform, or a ``Compose`` of them: ``RandSpatialCropd`` at the beginning, ``RandFlipd``,
            ``RandRotate90d``, ``RandRotated``, ``RandAffined``, ``OneOf`` and ``Identityd`` of these,
            ``RandAdjustContrastd``, ``RandGaussianSmoothd``, ``RandGaussianNoised``, :class:`WeakStrongViewsd` with its
            own strong view, ``EnsureTyped``.

    Attributes:
        roi_size: size of the patch that the chain begins with, or None; whoever makes the batch cuts it.

    Raises:
        ValueError: when the chain holds a transform, or an option of one, that is not among these.

    Example::

        >>> import torch
        >>> from monai.transforms import Compose, RandFlipd, RandGaussianNoised
        >>> from metassl_monai.transforms import BatchTransform
        >>> chain = Compose([RandFlipd(["image", "label"], prob=1.0, spatial_axis=0), RandGaussianNoised("image")])
        >>> images = torch.arange(4.0).view(1, 1, 2, 2).repeat(3, 1, 1, 1)
        >>> BatchTransform(chain)({"image": images, "label": images})["label"][2, 0].tolist()
        [[2.0, 3.0], [0.0, 1.0]]
    """

    def __init__(self, transform: Callable[..., Any] | None) -> None:
        chain = list(Compose(transform).flatten().transforms) if transform is not None else []
        self.roi_size: Sequence[int] | None = None
        if chain and isinstance(chain[0], RandSpatialCropd):
            self.roi_size = _roi_size(chain.pop(0))
        self.steps = _joined([_step(each) for each in chain if not isinstance(each, EnsureTyped)])

    def randomize(self, data: Any = None) -> None:
        """Draw nothing: each step draws when it is called."""

    def __call__(self, batch: Mapping[Any, Tensor]) -> Batch:
        """Return the transformed batch, in float32."""
        changed = dict(batch)
        for step in self.steps:
            changed = step(self.R, changed)
        return changed


class _Move:
    """A spatial step: how its matrices are drawn, and, where it interpolates, how."""

    def __init__(
        self, keys: Sequence[Hashable], draw: batch_spatial.Draw, modes: Sequence[str] = (), padding: str = ""
    ) -> None:
        self.keys, self.draw, self.modes, self.padding = tuple(keys), draw, tuple(modes), padding


def _joined(steps: Sequence[_Move | Step]) -> list[Step]:
    """Make one resampling of moves in a row, of which at most one interpolates."""
    result: list[Step] = []
    row: list[_Move] = []
    for step in [*steps, None]:
        joins = isinstance(step, _Move) and all(move.keys == step.keys for move in row)
        if row and not (joins and not (step.modes and any(move.modes for move in row))):  # type: ignore[union-attr]
            result.append(partial(_resample, row))
            row = []
        if isinstance(step, _Move):
            row.append(step)
        elif step is not None:
            result.append(step)
    return result


def _resample(moves: Sequence[_Move], random: np.random.RandomState, batch: Batch) -> Batch:
    keys = moves[0].keys
    first = next((batch[key] for key in keys if key in batch), None)
    if first is None:
        return batch
    interpolating = next((move for move in moves if move.modes), None)
    modes = interpolating.modes if interpolating else ["nearest"] * len(keys)
    padding = interpolating.padding if interpolating else "border"
    matrices = batch_spatial.unmoved(random, len(first), first.shape[2:])
    for move in moves:
        matrices = matrices @ move.draw(random, len(first), first.shape[2:])
    return batch_spatial.resample(batch, matrices, dict(zip(keys, modes, strict=True)), padding)


def _change(keys: Sequence[Hashable], change: batch_intensity.Change) -> Step:
    def step(random: np.random.RandomState, batch: Batch) -> Batch:
        return {**batch, **{key: change(random, batch[key].float()) for key in keys if key in batch}}

    return step


@singledispatch
def _step(transform: Any) -> _Move | Step:
    name = type(transform).__name__
    raise ValueError(f"{name} is not known for batches: leave it out, or load the data without device_data.json.")


@_step.register
def _(transform: Identityd) -> _Move:
    return _Move(transform.keys, batch_spatial.unmoved)


@_step.register
def _(transform: RandFlipd) -> _Move:
    axis = transform.flipper.spatial_axis
    if axis is None:
        raise ValueError("RandFlipd without spatial_axis is not known for batches: name its axes.")
    return _Move(transform.keys, batch_spatial.flips(transform.prob, [axis] if isinstance(axis, int) else axis))


@_step.register
def _(transform: RandRotate90d) -> _Move:
    return _Move(transform.keys, batch_spatial.quarter_turns(transform.prob, transform.max_k, transform.spatial_axes))


@_step.register
def _(transform: RandRotated) -> _Move:
    turn = transform.rand_rotate
    if not turn.keep_size or any(transform.align_corners):
        raise ValueError("RandRotated with keep_size=False or align_corners=True is not known for batches.")
    ranges = [turn.range_x, turn.range_y, turn.range_z]
    return _interpolating(transform, batch_spatial.affine_maps(transform.prob, rotate=ranges))


@_step.register
def _(transform: RandAffined) -> _Move:
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


@_step.register
def _(transform: Compose) -> _Move | Step:
    moves = [_step(each) for each in transform.flatten().transforms if not isinstance(each, EnsureTyped)]
    if not all(isinstance(move, _Move) and not move.modes for move in moves):
        raise ValueError("a Compose inside OneOf is known for batches where it only flips and turns by right angles.")

    def draw(random: np.random.RandomState, number: int, shape: Sequence[int]) -> np.ndarray:
        matrices = batch_spatial.unmoved(random, number, shape)
        for move in moves:
            matrices = matrices @ move.draw(random, number, shape)  # type: ignore[union-attr]
        return matrices

    return _Move(moves[0].keys, draw)  # type: ignore[union-attr]


@_step.register
def _(transform: OneOf) -> _Move:
    moves = [_step(each) for each in transform.transforms]
    interpolating = [move for move in moves if isinstance(move, _Move) and move.modes]
    if not all(isinstance(move, _Move) for move in moves) or len(interpolating) > 1:
        raise ValueError("OneOf is known for batches where it moves samples, and one of its transforms interpolates.")
    how = (interpolating[0].modes, interpolating[0].padding) if interpolating else ()
    draws = [move.draw for move in moves]  # type: ignore[union-attr]
    return _Move(moves[0].keys, batch_spatial.one_of(draws, transform.weights), *how)  # type: ignore[union-attr]


@_step.register
def _(transform: RandAdjustContrastd) -> Step:
    adjuster = transform.adjuster
    if adjuster.invert_image or adjuster.retain_stats:
        raise ValueError("RandAdjustContrastd with invert_image or retain_stats is not known for batches.")
    return _change(transform.keys, batch_intensity.contrast(transform.prob, adjuster.gamma))


@_step.register
def _(transform: RandGaussianSmoothd) -> Step:
    return _change(transform.keys, _intensity(transform.rand_smooth, transform.prob))


@_step.register
def _(transform: RandGaussianNoised) -> Step:
    return _change(transform.keys, _intensity(transform.rand_gaussian_noise, transform.prob))


@_step.register
def _(transform: WeakStrongViewsd) -> Step:
    strong = transform.views.strong
    if transform.views.weak is not None or not isinstance(strong, Compose):
        raise ValueError(
            "WeakStrongViewsd with a weak view, or a strong one that is no Compose, is not known for batches."
        )
    changes = [_intensity(each, each.prob) for each in strong.transforms]

    def step(random: np.random.RandomState, batch: Batch) -> Batch:
        views: Batch = {}
        for key in transform.keys:
            view = batch[key].float()
            for change in changes:
                view = change(random, view)
            views[f"{key}_{transform.strong_postfix}"] = view
        return {**batch, **views}

    return step


@singledispatch
def _intensity(transform: Any, prob: float) -> batch_intensity.Change:
    raise ValueError(f"{type(transform).__name__} is not known for batches: leave it out of the strong view.")


@_intensity.register
def _(transform: RandGaussianSmooth, prob: float) -> batch_intensity.Change:
    if transform.approx != "erf":
        raise ValueError(f"RandGaussianSmooth with approx={transform.approx!r} is not known for batches: use 'erf'.")
    return batch_intensity.gaussian_blur(prob, [transform.sigma_x, transform.sigma_y, transform.sigma_z])


@_intensity.register
def _(transform: RandGaussianNoise, prob: float) -> batch_intensity.Change:
    return batch_intensity.gaussian_noise(prob, transform.mean, transform.std, transform.sample_std)


@_intensity.register
def _(transform: RandScaleIntensityFixedMean, prob: float) -> batch_intensity.Change:
    if transform.channel_wise or transform.preserve_range or not transform.fixed_mean:
        raise ValueError("RandScaleIntensityFixedMean is known for batches with its default options alone.")
    return batch_intensity.scale_about_mean(prob, transform.factors)


@_intensity.register
def _(transform: RandStdShiftIntensity, prob: float) -> batch_intensity.Change:
    if transform.channel_wise or transform.nonzero:
        raise ValueError("RandStdShiftIntensity is known for batches with its default options alone.")
    return batch_intensity.shift_by_deviation(prob, transform.factors)


@_intensity.register
def _(transform: RandCutout, prob: float) -> batch_intensity.Change:
    return batch_intensity.cutout(prob, (transform.holes, transform.max_holes or transform.holes), transform.fractions)


def _interpolating(transform: RandRotated | RandAffined, draw: batch_spatial.Draw) -> _Move:
    paddings = {str(padding) for padding in transform.padding_mode}
    if len(paddings) > 1:
        raise ValueError(f"{type(transform).__name__} with several padding modes is not known for batches.")
    return _Move(transform.keys, draw, [str(mode) for mode in transform.mode], paddings.pop())


def _between(ranges: Sequence[Any]) -> list[tuple[float, float]]:
    known = [each for each in ranges if each is not None]
    return [tuple(each) if isinstance(each, Sequence) else (-each, each) for each in known]


def _roi_size(transform: RandSpatialCropd) -> Sequence[int]:
    cropper: Any = transform.cropper
    if cropper.random_size or not cropper.random_center:
        raise ValueError("RandSpatialCropd is known for batches with random_size=False and random_center=True.")
    size: Sequence[int] = cropper.roi_size
    return size
