# SPDX-License-Identifier: Apache-2.0
"""Random intensities of whole batches, as MONAI's transforms of the same names draw them for one sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Change", "contrast", "cutout", "gaussian_blur", "gaussian_noise", "scale_about_mean", "shift_by_deviation"]

Change = Callable[[np.random.RandomState, Tensor], Tensor]
"""Changes the intensities of a batch, ``(B, C, *spatial)`` in float32; what is random of a sample comes from NumPy."""


def contrast(prob: float, gamma: Sequence[float]) -> Change:
    """Raise intensities, scaled to [0, 1] by the sample's extremes, to a random power (``RandAdjustContrast``)."""

    def change(random: np.random.RandomState, images: Tensor) -> Tensor:
        power = _drawn(random, prob, gamma, 1.0, images)
        low = images.flatten(1).amin(1).view_as(power)
        extent = images.flatten(1).amax(1).view_as(power) - low
        changed = ((images - low) / (extent + 1e-7)).pow(power) * extent + low
        return torch.where(power == 1, images, changed)

    return change


def scale_about_mean(prob: float, factors: Sequence[float]) -> Change:
    """Scale intensities by ``1 + factor`` about the sample's mean (``RandScaleIntensityFixedMean``)."""

    def change(random: np.random.RandomState, images: Tensor) -> Tensor:
        factor = _drawn(random, prob, factors, 0.0, images)
        return torch.addcmul(images, factor, images - images.flatten(1).mean(1).view_as(factor))

    return change


def shift_by_deviation(prob: float, factors: Sequence[float]) -> Change:
    """Add ``factor`` standard deviations of the sample (``RandStdShiftIntensity``)."""

    def change(random: np.random.RandomState, images: Tensor) -> Tensor:
        factor = _drawn(random, prob, factors, 0.0, images)
        return images + factor * images.flatten(1).std(1, unbiased=False).view_as(factor)

    return change


def gaussian_blur(prob: float, sigmas: Sequence[Sequence[float]]) -> Change:
    """Blur by a Gaussian of a random width in voxels along each axis (``RandGaussianSmooth``, zeros beyond the border).

    Args:
        prob: probability of a sample.
        sigmas: smallest and largest width of each axis; those beyond the last axis are not used.
    """

    def change(random: np.random.RandomState, images: Tensor) -> Tensor:
        dims = images.ndim - 2
        chosen = random.rand(len(images)) < prob
        blurred = images
        for axis, (low, high) in zip(range(dims), sigmas, strict=False):
            kernels = _gaussians(random.uniform(low, high, len(images)), high)
            kernels[~chosen] = _unit(kernels.shape[1])
            blurred = _filtered(blurred, axis, torch.from_numpy(kernels).to(images.device, non_blocking=True))
        return torch.where(_column(chosen, images).bool(), blurred, images)

    return change


def gaussian_noise(prob: float, mean: float, std: float, sample_std: bool = True) -> Change:
    """Add Gaussian noise, of a standard deviation up to ``std`` or, without ``sample_std``, just that."""

    def change(random: np.random.RandomState, images: Tensor) -> Tensor:
        deviation = _drawn(random, prob, (0 if sample_std else std, std), 0.0, images)
        noise = torch.randn_like(images) * deviation
        return images + (noise + mean * (deviation != 0) if mean else noise)

    return change


def cutout(prob: float, holes: Sequence[int], fractions: Sequence[float]) -> Change:
    """Fill boxes with uniform noise between the sample's extremes.

    Args:
        prob: probability of a sample.
        holes: smallest and largest number of boxes.
        fractions: smallest and largest side of a box, as a fraction of each side of the image; one for all its boxes.
    """

    def change(random: np.random.RandomState, images: Tensor) -> Tensor:
        number, shape = len(images), np.array(images.shape[2:])
        sides = np.rint(random.uniform(fractions[0], fractions[1], number)[:, None] * shape).clip(1)
        count = np.where(random.rand(number) < prob, random.randint(holes[0], holes[1] + 1, number), 0)
        inside = torch.zeros_like(images[:, :1], dtype=torch.bool)
        for hole in range(holes[1]):
            starts = np.floor(random.rand(*sides.shape) * (shape - sides + 1))
            ends = np.where((hole < count)[:, None], starts + sides, 0)
            inside |= _boxes(starts, ends, images)
        low, high = images.flatten(1).amin(1), images.flatten(1).amax(1)
        noise = torch.rand_like(images) * _as_column(high - low, images) + _as_column(low, images)
        return torch.where(inside, noise, images)

    return change


def _drawn(
    random: np.random.RandomState, prob: float, between: Sequence[float], otherwise: float, images: Tensor
) -> Tensor:
    """One number a sample, broadcast over its voxels."""
    values = random.uniform(between[0], between[1], len(images))
    return _column(np.where(random.rand(len(images)) < prob, values, otherwise), images)


def _column(values: np.ndarray, images: Tensor) -> Tensor:
    return _as_column(torch.from_numpy(values.astype(np.float32)).to(images.device, non_blocking=True), images)


def _as_column(values: Tensor, images: Tensor) -> Tensor:
    return values.view(-1, *[1] * (images.ndim - 1))


def _gaussians(sigmas: np.ndarray, widest: float) -> np.ndarray:
    """Kernels, ``(B, taps)``: integrals of the density over each voxel, cut off as MONAI's ``gaussian_1d`` does."""
    tails = np.floor(np.maximum(4 * sigmas, 0.5) + 0.5)[:, None]
    offsets = np.arange(-_tail(widest), _tail(widest) + 1)
    scale = np.sqrt(0.5) / sigmas[:, None]
    edges = [torch.erf(torch.from_numpy(scale * (offsets + step))).numpy() for step in (0.5, -0.5)]
    kernels = 0.5 * (edges[0] - edges[1])
    return np.where(np.abs(offsets) <= tails, kernels.clip(0), 0).astype(np.float32)


def _tail(sigma: float) -> int:
    return int(max(4 * sigma, 0.5) + 0.5)


def _unit(taps: int) -> np.ndarray:
    image: np.ndarray = (np.arange(taps) == taps // 2).astype(np.float32)
    return image


def _filtered(images: Tensor, axis: int, kernels: Tensor) -> Tensor:
    """Convolve one axis with a kernel a sample: samples and channels become groups."""
    number, channels, *spatial = images.shape
    taps = [1] * len(spatial)
    taps[axis] = kernels.shape[1]
    weight = kernels.repeat_interleave(channels, 0).view(number * channels, 1, *taps)
    convolve = F.conv2d if len(spatial) == 2 else F.conv3d
    one = images.reshape(1, number * channels, *spatial)
    result = convolve(one, weight, padding=[side // 2 for side in taps], groups=number * channels)
    return result.view_as(images)


def _boxes(starts: np.ndarray, ends: np.ndarray, images: Tensor) -> Tensor:
    """True inside one box a sample, ``(B, 1, *spatial)``."""
    inside = torch.ones_like(images[:, :1], dtype=torch.bool)
    for axis, side in enumerate(images.shape[2:]):
        place = torch.arange(side, device=images.device).view(-1, *[1] * (images.ndim - 3 - axis))
        inside &= (place >= _column(starts[:, axis], images)) & (place < _column(ends[:, axis], images))
    return inside
