# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

ROOT = Path(__file__).parents[1]
# One thread a test process: the suite runs in parallel, and tiny tensors gain nothing from more.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")


@pytest.fixture(scope="session")
def phantom(tmp_path_factory):
    """A tiny drawn data set; read only."""
    from metassl_monai.data import make_phantom

    folder = tmp_path_factory.mktemp("phantom") / "data"
    return make_phantom(folder, cases=7, labeled=1, validation=2, test=1, size=(32, 32, 3), seed=3)


@pytest.fixture(scope="session")
def real_data():
    """The folder of real cases; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("METASSL_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("no real data: point METASSL_DATA at a folder that holds acdc/")
    return folder


LA_SPACING = 0.625  # mm, the same on all axes


def write_array(file: Path, array: np.ndarray) -> None:
    """Write an array (X, Y, Z) as the LA challenge does, through ITK: compressed, axis-aligned, origin at 0."""
    import itk

    image = itk.image_from_array(np.ascontiguousarray(array.T))
    image.SetSpacing([LA_SPACING] * array.ndim)
    itk.imwrite(image, str(file), compression=True)


def draw_atrium(shape: tuple[int, int, int], random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw a noisy uint8 volume (X, Y, Z) and its annotation, one bright blob off the center, with values 0 and 255."""
    center = np.array(shape) * random.uniform(0.4, 0.6, size=3)
    radius = np.array(shape) * random.uniform(0.2, 0.3, size=3)
    axes = np.meshgrid(*map(np.arange, shape), indexing="ij")
    distance = np.sqrt(sum(((x - c) / r) ** 2 for x, c, r in zip(axes, center, radius, strict=True)))
    bumps = gaussian_filter(random.standard_normal(shape), 3)
    inside = distance + 0.15 * bumps / bumps.std() < 1
    image = 70 + 80 * inside + 15 * random.standard_normal(shape)
    return image.clip(0, 255).astype(np.uint8), inside.astype(np.uint8) * 255


def write_release(
    folder: Path, cases: Iterable[str], shape: tuple[int, int, int] = (32, 24, 16), seed: int = 0
) -> Path:
    """Write ``CASE/lgemri.nrrd`` and ``CASE/laendo.nrrd`` for each case; sizes vary by a few voxels in x and y."""
    random = np.random.default_rng(seed)
    for case in cases:
        size = (shape[0] + int(random.integers(3)), shape[1] + int(random.integers(3)), shape[2])
        image, label = draw_atrium(size, random)
        (folder / case).mkdir(parents=True)
        write_array(folder / case / "lgemri.nrrd", image)
        write_array(folder / case / "laendo.nrrd", label)
    return folder


@pytest.fixture(scope="session")
def write_la() -> Callable[..., Path]:
    """``write_la(folder, cases, shape)``: a release of LA with these cases."""
    return write_release


@pytest.fixture(scope="session")
def write_nrrd() -> Callable[[Path, np.ndarray], None]:
    """``write_nrrd(file, array)``: an array as an NRRD file."""
    return write_array
