# SPDX-License-Identifier: Apache-2.0
"""A data set that needs no download: drawn short-axis "hearts" that look like cine MR, as NIfTI files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation

from .datalist import write_datalist
from .phantom_drawing import acquire, draw_heart, grid_of, paint, texture
from .problems import DatalistError

__all__ = ["make_phantom"]

LABELS = {"0": "background", "1": "right ventricle", "2": "myocardium", "3": "left ventricle"}


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
    grid = grid_of(size)
    heart = draw_heart(rng, grid)
    voxels = acquire(rng, paint(rng, grid, heart), grid)
    affine, flips = _affine(rng, size)
    # From a stream of its own, so that the images are the same with and without it.
    label = _disturb(rng.spawn(1)[0], heart.label, noise) if noise else heart.label
    for folder, array in (("images", voxels), ("labels", label)):
        image = nibabel.Nifti1Image(np.flip(array, flips), affine)
        image.set_qform(affine, code="scanner")
        image.set_sform(affine, code="scanner")
        image.header.set_xyzt_units("mm")
        nibabel.save(image, root / folder / f"{name}.nii.gz")


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
        index[axis] += bend * texture(rng, label.shape, 0.06 * min(label.shape[:2]))
    voxels: np.ndarray = map_coordinates(label, index, order=0)
    return voxels
