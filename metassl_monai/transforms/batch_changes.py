# SPDX-License-Identifier: Apache-2.0
"""MONAI's random array transforms of intensities, as changes of a whole batch."""

from __future__ import annotations

from functools import singledispatch
from typing import Any

from monai.transforms import (
    RandGaussianNoise,
    RandGaussianSmooth,
    RandScaleIntensityFixedMean,
    RandStdShiftIntensity,
)

from . import batch_intensity
from .batch_intensity import Change
from .views import RandCutout

__all__ = ["batch_change"]


@singledispatch
def batch_change(transform: Any, prob: float) -> Change:
    """Return what changes the intensities of a batch as a random array transform of MONAI does those of a sample.

    Args:
        transform: the transform.
        prob: probability of a sample to be changed.

    Raises:
        ValueError: when the transform, or an option of it, is not known for batches.
    """
    raise ValueError(f"{type(transform).__name__} is not known for batches: leave it out of the strong view.")


@batch_change.register
def _(transform: RandGaussianSmooth, prob: float) -> Change:
    if transform.approx != "erf":
        raise ValueError(f"RandGaussianSmooth with approx={transform.approx!r} is not known for batches: use 'erf'.")
    return batch_intensity.gaussian_blur(prob, [transform.sigma_x, transform.sigma_y, transform.sigma_z])


@batch_change.register
def _(transform: RandGaussianNoise, prob: float) -> Change:
    return batch_intensity.gaussian_noise(prob, transform.mean, transform.std, transform.sample_std)


@batch_change.register
def _(transform: RandScaleIntensityFixedMean, prob: float) -> Change:
    if transform.channel_wise or transform.preserve_range or not transform.fixed_mean:
        raise ValueError("RandScaleIntensityFixedMean is known for batches with its default options alone.")
    return batch_intensity.scale_about_mean(prob, transform.factors)


@batch_change.register
def _(transform: RandStdShiftIntensity, prob: float) -> Change:
    if transform.channel_wise or transform.nonzero:
        raise ValueError("RandStdShiftIntensity is known for batches with its default options alone.")
    return batch_intensity.shift_by_deviation(prob, transform.factors)


@batch_change.register
def _(transform: RandCutout, prob: float) -> Change:
    return batch_intensity.cutout(prob, (transform.holes, transform.max_holes or transform.holes), transform.fractions)
