# SPDX-License-Identifier: Apache-2.0
"""A data set that needs no download: drawn short-axis "hearts" that look like cine MR, as NIfTI files with a datalist.

The drawing is after what cine MR of the heart shows (bright blood, darker muscle, fat, lung, liver, papillary muscles
that annotators count as blood, breath-hold shifts between slices, coil shading and Rician noise: H. Gudbjartsson and
S. Patz, "The Rician distribution of noisy MRI data", MRM 34(6), 1995). It favors no method and replaces no real data.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import nibabel
import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.spatial.transform import Rotation

from .datalist import DatalistError, write_datalist

__all__ = ["make_phantom"]

LABELS = {"0": "background", "1": "right ventricle", "2": "myocardium", "3": "left ventricle"}
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


def make_phantom(
    directory: str | os.PathLike[str],
    cases: int = 24,
    labeled: int = 2,
    validation: int = 4,
    test: int = 4,
    size: tuple[int, int, int] = (96, 96, 8),
    seed: int = 0,
    annotation_noise: float = 0.0,
) -> Path:
    """Draw a data set into an empty folder: ``images/CASE.nii.gz``, ``labels/CASE.nii.gz`` and ``datalist.json``.

    Images are int16 with values in the hundreds, labels uint8 with the classes of ACDC (0 background, 1 right
    ventricle, 2 myocardium, 3 left ventricle). Spacing is about 1.5 x 1.5 x 8 mm at the default size; it varies from
    case to case, and so do the oblique affine and the direction of the axes. Every case is a subject of its own.

    Args:
        directory: where to write; made if missing.
        cases: number of cases; those in no other list are unlabeled.
        labeled: number of labeled cases, at least 1.
        validation: number of validation cases.
        test: number of test cases.
        size: voxels along x, y (in the slice) and z (slices).
        seed: the same seed gives the same files.
        annotation_noise: strength in [0, 1] of the random shrinking and elastic deformation of the labels of the
            ``labeled`` cases. All images and all other labels stay as they are.

    Returns:
        The path of the datalist.

    Raises:
        DatalistError: if ``directory`` is not empty or the numbers do not fit together.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = make_phantom(folder, cases=3, labeled=1, validation=1, test=0, size=(32, 32, 3))
        ...     nibabel.load(path.parent / "labels" / "phantom001.nii.gz").shape
        (32, 32, 3)
    """
    root = Path(directory)
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise DatalistError(root, "is not an empty folder", "name a new or empty folder for the phantom")
    if labeled < 1 or min(validation, test) < 0 or labeled + validation + test > cases:
        cause = f"cannot make {labeled} labeled, {validation} validation and {test} test cases out of {cases}"
        raise DatalistError(root, cause, "label at least one case and ask for no more than there are")
    if not 0 <= annotation_noise <= 1:
        raise DatalistError(root, f"annotation_noise {annotation_noise} is not in [0, 1]", "choose another strength")
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    for number in range(cases):
        noise = annotation_noise if number < labeled else 0.0
        _write_case(root, _case_name(number), np.random.default_rng([seed, number]), size, noise)
    datalist = _datalist(cases, labeled, validation, test)
    datalist["source"] |= {"size": list(size), "seed": seed, "annotation_noise": annotation_noise}
    write_datalist(datalist, root / "datalist.json")
    return root / "datalist.json"


def _datalist(cases: int, labeled: int, validation: int, test: int) -> dict[str, Any]:
    items = []
    for name in map(_case_name, range(cases)):
        files = {"image": f"images/{name}.nii.gz", "label": f"labels/{name}.nii.gz"}
        items.append({**files, "subject": name, "case": name})
    ends = np.cumsum([labeled, validation, test])
    hidden = items[ends[2] :]
    lists = {
        "labeled": items[: ends[0]],
        "unlabeled": [{key: item[key] for key in ("image", "subject", "case")} for item in hidden],
        "validation": items[ends[0] : ends[1]],
        "test": items[ends[1] : ends[2]],
        "monitor": hidden,
    }
    counts = {key: len(value) for key, value in lists.items()}
    return {"name": "phantom", "labels": dict(LABELS), **lists, "source": {"reader": "phantom", "counts": counts}}


def _case_name(number: int) -> str:
    return f"phantom{number + 1:03d}"


def _write_case(root: Path, name: str, rng: np.random.Generator, size: tuple[int, int, int], noise: float) -> None:
    grid = _grid(size)
    heart = _draw_heart(rng, grid)
    voxels = _acquire(rng, _paint(rng, grid, heart), grid)
    affine, flips = _affine(rng, size)
    # From a stream of its own, so that the images are the same with and without it.
    label = _disturb(rng.spawn(1)[0], heart.label, noise) if noise else heart.label
    for folder, array in (("images", voxels), ("labels", label)):
        image = nibabel.Nifti1Image(np.flip(array, flips), affine)
        image.set_qform(affine, code="scanner")
        image.set_sform(affine, code="scanner")
        image.header.set_xyzt_units("mm")
        nibabel.save(image, root / folder / f"{name}.nii.gz")


def _grid(size: tuple[int, int, int]) -> Grid:
    half = min(size[:2]) / 2
    x, y = ((np.arange(count) - (count - 1) / 2) / half for count in size[:2])
    return Grid(*np.meshgrid(x, y, (np.arange(size[2]) + 0.5) / size[2], indexing="ij"))


def _draw_heart(rng: np.random.Generator, grid: Grid) -> Heart:
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


def _paint(rng: np.random.Generator, grid: Grid, heart: Heart) -> np.ndarray:
    """Return intensities, blood at about 1, of the thorax with the heart in it."""
    blood, muscle = rng.uniform(0.85, 1.1), rng.uniform(0.25, 0.5)
    fat, liver, lung = rng.uniform(0.5, 1.0), rng.uniform(0.35, 0.65), rng.uniform(0.06, 0.16)
    shape = grid.x.shape
    x, y = (axis + 0.05 * _texture(rng, shape, 8) for axis in (grid.x, grid.y))
    inflow = blood * (1 - rng.uniform(0, 0.2) * grid.z)
    image = np.full(shape, muscle * 1.2)
    image = np.where(np.hypot(x - rng.uniform(0.75, 1.0), (y + 0.1) / 1.2) < rng.uniform(0.6, 0.85), lung, image)
    image = np.where(np.hypot(x + rng.uniform(0.9, 1.1), y - rng.uniform(0.3, 0.6)) < 0.5, lung, image)
    image = np.where(np.hypot(x + rng.uniform(0.5, 0.9), (y + 1.0) / 0.8) < 0.3 + 0.4 * grid.z, liver, image)
    image = np.where(heart.surroundings, fat * (0.8 + 0.25 * _texture(rng, shape, 4)), image)
    image = np.where(y > rng.uniform(0.68, 0.8), muscle, image)
    image = np.where(y > rng.uniform(0.84, 0.94), fat, image)
    for place, size in (((0.5, -0.8), 0.15), ((-0.65, -0.55), 0.1), ((0.85, 0.1), 0.05)):
        left, up = rng.normal(place, 0.06)
        vessel = (np.hypot(x - left, y - up) < size * rng.uniform(0.8, 1.2)) & ~heart.surroundings
        image = np.where(vessel, inflow, image)
    image = np.where(heart.right_wall | (heart.label == MYOCARDIUM), muscle, image)
    flow = inflow * (1 + 0.06 * _texture(rng, shape, 3))
    image = np.where(np.isin(heart.label, (LEFT_VENTRICLE, RIGHT_VENTRICLE)), flow, image)
    image = np.where(heart.papillary, muscle * 1.15, image)
    return image * (1 + 0.1 * _texture(rng, shape, 1))


def _texture(rng: np.random.Generator, shape: tuple[int, ...], voxels: float) -> np.ndarray:
    """Return smooth noise with mean 0 and standard deviation 1; ``voxels`` is its grain in the slice."""
    noise = gaussian_filter(rng.normal(size=shape), (voxels, voxels, 0.6), mode="wrap")
    found: np.ndarray = (noise - noise.mean()) / noise.std()
    return found


def _acquire(rng: np.random.Generator, image: np.ndarray, grid: Grid) -> np.ndarray:
    """Return int16 voxels as a scanner gives them: partial volume, coil shading, gain and Rician noise."""
    image = gaussian_filter(image, (0.7, 0.7, 0.15))
    terms = (grid.x, grid.y, grid.z - 0.5, grid.x * grid.y, grid.x**2 - grid.y**2)
    shading = np.exp(sum(rng.normal(0, 0.15) * term for term in terms))
    real, imaginary = rng.normal(0, rng.uniform(0.03, 0.07), (2, *image.shape))
    magnitude = np.hypot(image * shading + real, imaginary)
    voxels: np.ndarray = np.rint(magnitude * rng.uniform(250, 600)).clip(0, 32767).astype(np.int16)
    return voxels


def _affine(rng: np.random.Generator, size: tuple[int, int, int]) -> tuple[np.ndarray, tuple[int, ...]]:
    """Return an oblique affine in millimeters, and the axes of the array that are to be stored reversed."""
    in_plane = rng.uniform(1.3, 1.7) * 96 / min(size[:2])
    spacing = np.array([in_plane, in_plane, rng.uniform(7, 10)])
    turn = Rotation.from_euler("zyx", rng.normal((20, -35, 40), 10), degrees=True).as_matrix()
    flips = tuple(axis for axis in range(3) if rng.uniform() < 0.2)
    signs = np.array([-1 if axis in flips else 1 for axis in range(3)])
    affine = np.eye(4)
    affine[:3, :3] = turn * spacing * signs
    # The middle of the volume lies near the magnet's isocenter, however the axes are stored.
    affine[:3, 3] = rng.normal(0, 20, 3) - affine[:3, :3] @ ((np.array(size) - 1) / 2)
    return affine, flips


def _disturb(rng: np.random.Generator, label: np.ndarray, strength: float) -> np.ndarray:
    """Shrink a label in the slices toward the heart's middle and bend it, by ``strength`` in [0, 1]."""
    places = np.argwhere(label)
    middle = places.mean(0) if len(places) else np.array(label.shape) / 2
    grow = 1 + strength * rng.uniform(0.05, 0.3)
    index = np.indices(label.shape, dtype=float)
    # One voxel of a 96-voxel slice is a good 1 % of its width: `bend` is up to about 3 of them.
    bend = strength * 0.03 * min(label.shape[:2])
    for axis in (0, 1):
        index[axis] = middle[axis] + (index[axis] - middle[axis]) * grow
        index[axis] += bend * _texture(rng, label.shape, 0.06 * min(label.shape[:2]))
    voxels: np.ndarray = map_coordinates(label, index, order=0)
    return voxels
