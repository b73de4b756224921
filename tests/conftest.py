# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

ROOT = Path(__file__).parents[1]
# One thread a test process: the suite runs in parallel, and tiny tensors gain nothing from more.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")


FAST_ROOMS = {"losses", "methods", "metrics", "networks"}


def pytest_collection_modifyitems(items):
    """Mark what a change to a loss, method or network breaks first: ``pytest -m fast`` takes less than a minute."""
    for item in items:
        if FAST_ROOMS & set(item.path.parts[len(ROOT.parts) : -1]) and "slow" not in item.keywords:
            item.add_marker(pytest.mark.fast)


@pytest.fixture
def differences():
    """Paths at which two nested states are not equal bit for bit."""
    import torch

    def find(first, second, path=""):
        if isinstance(first, Mapping) and isinstance(second, Mapping):
            if list(first) != list(second):
                return [f"{path} (keys)"]
            return [found for key in first for found in find(first[key], second[key], f"{path}/{key}")]
        if isinstance(first, list | tuple) and isinstance(second, list | tuple):
            if len(first) != len(second):
                return [f"{path} (length)"]
            pairs = enumerate(zip(first, second, strict=True))
            return [found for i, (a, b) in pairs for found in find(a, b, f"{path}/{i}")]
        if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
            return [] if first.dtype == second.dtype and torch.equal(first, second) else [path]
        return [] if type(first) is type(second) and first == second else [path]

    return find


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


def draw_ellipsoids(shape: tuple[int, int, int], number: int, random: np.random.Generator) -> np.ndarray:
    """Draw classes 1 to ``number`` (X, Y, Z), one ellipsoid each, side by side along x, on 0."""
    label = np.zeros(shape, np.uint8)
    axes = np.meshgrid(*map(np.arange, shape), indexing="ij")
    for value in range(1, number + 1):
        center = np.array([(value - 0.5) / number, *random.uniform(0.45, 0.55, 2)]) * shape
        radius = np.array([0.35 / number, *random.uniform(0.2, 0.3, 2)]) * shape
        distance = sum(((x - c) / r) ** 2 for x, c, r in zip(axes, center, radius, strict=True))
        label[distance < 1] = value
    return label


def write_nifti(file: Path, array: np.ndarray, affine: np.ndarray) -> None:
    import nibabel

    file.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, affine), file)


def write_brats(folder: Path, cases: Iterable[str], shape: tuple[int, int, int] = (40, 40, 36)) -> Path:
    """Write FLAIR and annotation of each case: a brain on zeros, 1 mm, values 0, 1, 2, 4, axes as in the release."""
    random = np.random.default_rng(0)
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    affine[1, 3] = shape[1] - 1
    for number, case in enumerate(cases):
        label = np.array([0, 2, 4, 1], np.uint8)[draw_ellipsoids(shape, 3, random)]
        brain = draw_ellipsoids(shape, 1, random) > 0
        image = np.where(brain | (label > 0), 200 + 150 * (label > 0) + 30 * random.standard_normal(shape), 0)
        start = folder / ("HGG" if number % 2 == 0 else "LGG") / case / case
        for name in ("flair", "t1", "t1ce", "t2"):
            write_nifti(Path(f"{start}_{name}.nii.gz"), image.clip(0).astype(np.int16), affine)
        write_nifti(Path(f"{start}_seg.nii.gz"), label, affine)
    return folder


def write_abdomen(folder: Path, numbers: Iterable[int], shape: tuple[int, int, int] = (32, 30, 4)) -> Path:
    """Write image and mask of each case number, images in two parts; every other case has other axes."""
    random = np.random.default_rng(1)
    for number in numbers:
        label = draw_ellipsoids(shape, 4, random)
        image = 40.0 * label - 100 + 20 * random.standard_normal(shape)
        affine = np.diag([(-1.0) ** number * 0.8, 0.8, 2.5, 1.0])
        part = folder / f"AbdomenCT-1K-ImagePart{1 + number % 2}"
        write_nifti(part / f"Case_{number:05d}_0000.nii.gz", image.astype(np.int16), affine)
        write_nifti(folder / "Mask" / f"Case_{number:05d}.nii.gz", label, affine)
    return folder


def write_series(folder: Path, array: np.ndarray, spacing: tuple[float, float, float], uid: str) -> None:
    """Write Hounsfield units (X, Y, Z) as a DICOM series whose axes point left, front and down, as in Pancreas-CT."""
    import itk

    folder.mkdir(parents=True)
    tags = {"0008|0060": "CT", "0008|0016": "1.2.840.10008.5.1.4.1.1.2", "0020|000d": uid, "0020|000e": f"{uid}.1"}
    for z in range(array.shape[2]):
        image = itk.image_from_array(np.ascontiguousarray(array[:, :, z : z + 1].T.astype(np.int16)))
        image.SetSpacing(spacing)
        image.SetOrigin((-12.0, 20.0, 100.0 - z * spacing[2]))
        image.SetDirection(np.diag([1.0, -1.0, -1.0]))
        header = image.GetMetaDataDictionary()
        for key, value in {**tags, "0008|0018": f"{uid}.1.{z + 1}", "0020|0013": str(z + 1)}.items():
            header[key] = value
        dicom = itk.GDCMImageIO.New()
        dicom.KeepOriginalUIDOn()
        file = str(folder / f"1-{z + 1:03d}.dcm")
        itk.ImageFileWriter[type(image)].New(Input=image, FileName=file, ImageIO=dicom).Update()


def write_pancreas(
    folder: Path, numbers: Iterable[int], shape: tuple[int, int, int] = (40, 38, 36), axes: str = "LAI"
) -> Path:
    """Write series and label of each case number; the labels are stored along ``axes``, as their affine says."""
    from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform

    random = np.random.default_rng(2)
    spacing = (0.8, 0.8, 1.0)
    # What a reader makes of the series: its first voxel is the rightmost, at the back and on top.
    affine = np.array([[-0.8, 0, 0, 12], [0, 0.8, 0, -20], [0, 0, -1, 100], [0, 0, 0, 1]])
    turn = ornt_transform(axcodes2ornt("LAI"), axcodes2ornt(axes))
    for number in numbers:
        label = draw_ellipsoids(shape, 1, random)
        image = 100.0 * label + 20 + 30 * random.standard_normal(shape)
        uid = f"1.3.6.{number}"
        series = folder / "Pancreas-CT" / f"PANCREAS_{number:04d}" / uid / f"{uid}.1"
        write_series(series, image, spacing, uid)
        file = folder / "TCIA_pancreas_labels-02-05-2017" / f"label{number:04d}.nii.gz"
        write_nifti(file, apply_orientation(label, turn), affine @ inv_ornt_aff(turn, shape))
    return folder


@pytest.fixture(scope="session")
def write_brats2019() -> Callable[..., Path]:
    """``write_brats2019(folder, cases, shape)``: a release of BraTS 2019 with these cases."""
    return write_brats


@pytest.fixture(scope="session")
def write_abdomenct1k() -> Callable[..., Path]:
    """``write_abdomenct1k(folder, numbers, shape)``: a release of AbdomenCT-1K with these cases."""
    return write_abdomen


@pytest.fixture(scope="session")
def write_pancreas_ct() -> Callable[..., Path]:
    """``write_pancreas_ct(folder, numbers, shape, axes)``: a release of Pancreas-CT with these cases."""
    return write_pancreas


DIGESTPATH_NAMES = (
    "18-02791B_2019-05-07 22_25_06-lv1-14165-17366-60-44",
    "18-02791B_2019-05-07 22_25_06-lv1-18872-21098-60-44",
    "18-02791A_2019-05-07 22_31_40-lv1-2384-13662-60-44",
    "D20170362101_2019-05-14 10_54_29-lv1-36452-24059-60-44",
    "2019_01120_1-1_2019-02-20 19_18_16-lv1-23931-17039-60-44",
    "1901558001_2019-04-30 10_24_11-lv1-53781-36766-60-44",
    "2019-06-11 00_44_44-lv1-3309-17888-60-44",
    "F2018_13446_1-1_2019-02-20 21_33_15-lv1-13171-109-60-44",
)
"""Eight images of seven slides and six subjects, named as in the release."""


def draw_section(size: tuple[int, int], random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw a section (H, W, 3) on white glass, and its mask (H, W): one darker tumor, 0 and 255."""
    axes = np.meshgrid(*(np.linspace(-1, 1, side) for side in size[::-1]), indexing="ij")
    center = random.uniform(-0.3, 0.3, 2)
    tissue = axes[0] ** 2 + axes[1] ** 2 < 0.8
    tumor = sum((axis - c) ** 2 for axis, c in zip(axes, center, strict=True)) < 0.12
    image = np.full((*tissue.shape, 3), 245.0)
    image[tissue] = (230, 170, 200)
    image[tumor] = (130, 70, 150)
    image += random.normal(0, 4, image.shape)
    return image.clip(0, 255).astype(np.uint8), tumor.astype(np.uint8) * 255


def write_sections(
    folder: Path, names: Iterable[str] = DIGESTPATH_NAMES, size: tuple[int, int] = (60, 44), seed: int = 0
) -> Path:
    """Write ``tissue-train-pos-v1/NAME.jpg`` and ``NAME_mask.jpg`` of a width and height, and a benign image."""
    from PIL import Image

    random = np.random.default_rng(seed)
    for part in ("tissue-train-pos-v1", "tissue-train-neg"):
        (folder / part).mkdir(parents=True)
    for name in names:
        image, mask = draw_section(size, random)
        Image.fromarray(image).save(folder / "tissue-train-pos-v1" / f"{name}.jpg", quality=95)
        Image.fromarray(mask).save(folder / "tissue-train-pos-v1" / f"{name}_mask.jpg", quality=80)
    Image.fromarray(image).save(folder / "tissue-train-neg" / "2019-06-04 17_56_04-lv1-1-2-60-44.jpg")
    return folder


@pytest.fixture(scope="session")
def write_digestpath() -> Callable[..., Path]:
    """``write_digestpath(folder, names, size)``: a release of DigestPath with these images."""
    return write_sections
