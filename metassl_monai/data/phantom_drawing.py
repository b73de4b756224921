# SPDX-License-Identifier: Apache-2.0
"""The drawing of a short-axis "heart" that looks like cine MR.

The drawing is after what cine MR of the heart shows (bright blood, darker muscle, fat, lung, liver, papillary muscles
that annotators count as blood, breath-hold shifts between slices, coil shading and Rician noise: H. Gudbjartsson and
S. Patz, "The Rician distribution of noisy MRI data", MRM 34(6), 1995). It favors no method and replaces no real data.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter

__all__ = ["Grid", "Heart", "acquire", "draw_heart", "grid_of", "paint", "texture"]

RIGHT_VENTRICLE, MYOCARDIUM, LEFT_VENTRICLE = 1, 2, 3


class Grid(NamedTuple):
    """Coordinates of the voxels, each (X, Y, Z): x and y from -1 to 1 (left, anterior), z from 0 (base) to 1 (apex)."""

    x: np.ndarray
    y: np.ndarray
    z: np.ndarray


class Heart(NamedTuple):
    """The drawn structures, each (X, Y, Z); ``label`` holds classes and the others are masks."""

    label: np.ndarray
    right_wall: np.ndarray
    papillary: np.ndarray
    surroundings: np.ndarray


def grid_of(size: tuple[int, int, int]) -> Grid:
    """Return the coordinates of the voxels of a volume."""
    half = min(size[:2]) / 2
    x, y = ((np.arange(count) - (count - 1) / 2) / half for count in size[:2])
    return Grid(*np.meshgrid(x, y, (np.arange(size[2]) + 0.5) / size[2], indexing="ij"))


def draw_heart(rng: np.random.Generator, grid: Grid) -> Heart:
    """Draw the ventricles in polar coordinates about the axis of the left one, which the slices cut at an angle."""
    slices = grid.z.shape[2]
    shift = rng.normal(0, 0.015, (2, slices)) + rng.normal(0, 0.12, (2, 1)) * (grid.z[0, 0] - 0.5)
    x, y = (axis - rng.uniform(-0.1, 0.15) - offset for axis, offset in zip((grid.x, grid.y), shift, strict=True))
    turn = rng.normal(-0.25, 0.35)
    u, v = x * np.cos(turn) + y * np.sin(turn), (y * np.cos(turn) - x * np.sin(turn)) * rng.uniform(0.9, 1.12)
    radius, angle = np.hypot(u, v), np.arctan2(v, u)
    taper = np.sqrt(1 - (rng.uniform(0.85, 0.97) * grid.z) ** 2)
    endo = rng.uniform(0.2, 0.34) * taper * _wobble(rng, angle, 0.06)
    wall = rng.uniform(0.09, 0.17) * (0.65 + 0.35 * taper) * _wobble(rng, angle, 0.08)
    epi = endo + wall
    # The right ventricle is an ellipse behind the septum, cut by the left one to a crescent, and shorter than it.
    mean, shrink = epi.mean((0, 1)), 1 - rng.uniform(0.35, 0.65) * grid.z**1.5
    across, along = rng.uniform(0.7, 1.0) * shrink, rng.uniform(0.95, 1.2) * shrink
    ellipse = np.hypot((u / mean + rng.uniform(0.75, 0.95)) / across, v / mean / along) / _wobble(rng, angle, 0.05)
    label = np.where((ellipse < 1) & (radius >= epi), RIGHT_VENTRICLE, 0)
    label = np.where(radius < epi, MYOCARDIUM, label)
    label = np.where(radius < endo, LEFT_VENTRICLE, label).astype(np.uint8)
    margin = rng.uniform(0.04, 0.1)
    return Heart(
        label=label,
        right_wall=(ellipse < 1 + 0.05 / mean) & (label == 0),
        papillary=_papillary(rng, radius / endo, angle) & (label == LEFT_VENTRICLE),
        surroundings=(radius < epi + margin) | (ellipse < 1 + 2 * margin / mean),
    )


def _wobble(rng: np.random.Generator, angle: np.ndarray, strength: float) -> np.ndarray:
    """Return a factor around 1 that varies smoothly with the angle, so that no outline is a plain ellipse."""
    waves = [rng.normal(0, strength) / k * np.cos(k * angle + rng.uniform(0, 2 * np.pi)) for k in (1, 2, 3, 4)]
    voxels: np.ndarray = 1 + np.sum(waves, axis=0)
    return voxels


def _papillary(rng: np.random.Generator, depth: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Return two muscles near the wall of the cavity; ``depth`` is 0 on its axis and 1 at the wall."""
    x, y = depth * np.cos(angle), depth * np.sin(angle)
    masks = []
    for place in rng.uniform((0.3, -1.4), (1.4, -0.3)):
        distance, size = rng.uniform(0.55, 0.75), rng.uniform(0.12, 0.24)
        masks.append(np.hypot(x - distance * np.cos(place), y - distance * np.sin(place)) < size)
    voxels: np.ndarray = masks[0] | masks[1]
    return voxels


def paint(rng: np.random.Generator, grid: Grid, heart: Heart) -> np.ndarray:
    """Return intensities, blood at about 1, of the thorax with the heart in it."""
    blood, muscle = rng.uniform(0.85, 1.1), rng.uniform(0.25, 0.5)
    fat, liver, lung = rng.uniform(0.5, 1.0), rng.uniform(0.35, 0.65), rng.uniform(0.06, 0.16)
    shape = grid.x.shape
    x, y = (axis + 0.05 * texture(rng, shape, 8) for axis in (grid.x, grid.y))
    inflow = blood * (1 - rng.uniform(0, 0.2) * grid.z)
    image = np.full(shape, muscle * 1.2)
    image = np.where(np.hypot(x - rng.uniform(0.75, 1.0), (y + 0.1) / 1.2) < rng.uniform(0.6, 0.85), lung, image)
    image = np.where(np.hypot(x + rng.uniform(0.9, 1.1), y - rng.uniform(0.3, 0.6)) < 0.5, lung, image)
    image = np.where(np.hypot(x + rng.uniform(0.5, 0.9), (y + 1.0) / 0.8) < 0.3 + 0.4 * grid.z, liver, image)
    image = np.where(heart.surroundings, fat * (0.8 + 0.25 * texture(rng, shape, 4)), image)
    image = np.where(y > rng.uniform(0.68, 0.8), muscle, image)
    image = np.where(y > rng.uniform(0.84, 0.94), fat, image)
    for place, size in (((0.5, -0.8), 0.15), ((-0.65, -0.55), 0.1), ((0.85, 0.1), 0.05)):
        left, up = rng.normal(place, 0.06)
        vessel = (np.hypot(x - left, y - up) < size * rng.uniform(0.8, 1.2)) & ~heart.surroundings
        image = np.where(vessel, inflow, image)
    image = np.where(heart.right_wall | (heart.label == MYOCARDIUM), muscle, image)
    flow = inflow * (1 + 0.06 * texture(rng, shape, 3))
    image = np.where(np.isin(heart.label, (LEFT_VENTRICLE, RIGHT_VENTRICLE)), flow, image)
    image = np.where(heart.papillary, muscle * 1.15, image)
    return image * (1 + 0.1 * texture(rng, shape, 1))


def texture(rng: np.random.Generator, shape: tuple[int, ...], voxels: float) -> np.ndarray:
    """Return smooth noise with mean 0 and standard deviation 1; ``voxels`` is its grain in the slice."""
    noise = gaussian_filter(rng.normal(size=shape), (voxels, voxels, 0.6), mode="wrap")
    found: np.ndarray = (noise - noise.mean()) / noise.std()
    return found


def acquire(rng: np.random.Generator, image: np.ndarray, grid: Grid) -> np.ndarray:
    """Return int16 voxels as a scanner gives them: partial volume, coil shading, gain and Rician noise."""
    image = gaussian_filter(image, (0.7, 0.7, 0.15))
    terms = (grid.x, grid.y, grid.z - 0.5, grid.x * grid.y, grid.x**2 - grid.y**2)
    shading = np.exp(sum(rng.normal(0, 0.15) * term for term in terms))
    real, imaginary = rng.normal(0, rng.uniform(0.03, 0.07), (2, *image.shape))
    magnitude = np.hypot(image * shading + real, imaginary)
    voxels: np.ndarray = np.rint(magnitude * rng.uniform(250, 600)).clip(0, 32767).astype(np.int16)
    return voxels
