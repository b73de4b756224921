# SPDX-License-Identifier: Apache-2.0
"""Folders of DICOM slices: every voxel where it is in the world, or a message that says why there is no volume."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from monai.data import ITKReader
from scipy.spatial.transform import Rotation

from metassl_monai.data import read_scan
from metassl_monai.data.dicom import series_problem
from metassl_monai.data.problems import DatalistError

SHAPE, SPACING, ORIGIN = (7, 6, 5), (0.8, 0.6, 2.5), (-12.0, 20.0, 100.0)
LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])
AXIAL = np.eye(3)
ORIENTATIONS = {  # columns: along a row, along a column, from slice to slice
    "axial": AXIAL,
    "sagittal": np.array([[0.0, 0, -1], [1, 0, 0], [0, -1, 0]]),
    "coronal": np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]),
    "oblique": Rotation.from_euler("xyz", [20, -35, 50], degrees=True).as_matrix(),
}


def _volume() -> np.ndarray:
    volume = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)
    volume[5, 2, 1] = 3000
    return volume


def _write(
    folder: Path,
    directions: np.ndarray = AXIAL,
    *,
    volume: np.ndarray | None = None,
    places: Any = None,
    uid: str = "1.2.3",
    first: int = 1,
    spacing: tuple[float, float, float] = SPACING,
    **tags: str,
) -> Path:
    """Write a series; ``places`` are the positions of its slices, evenly spaced along their normal if None."""
    import itk

    folder.mkdir(parents=True, exist_ok=True)
    volume = _volume() if volume is None else volume
    normal = np.cross(directions[:, 0], directions[:, 1])
    if places is None:
        places = [np.array(ORIGIN) + z * spacing[2] * directions[:, 2] for z in range(volume.shape[2])]
    for z, place in enumerate(places):
        image = itk.image_from_array(np.ascontiguousarray(volume[:, :, z : z + 1].T))
        image.SetSpacing(spacing)
        image.SetOrigin([float(value) for value in place])
        image.SetDirection(np.ascontiguousarray(np.stack([*directions[:, :2].T, normal], axis=1)))
        header = image.GetMetaDataDictionary()
        fields = {"0008|0060": "CT", "0008|0016": "1.2.840.10008.5.1.4.1.1.2", "0020|000d": "1.2", "0020|000e": uid}
        fields |= {"0008|0018": f"{uid}.{first + z}", "0020|0013": str(first + z), **tags}
        for key, value in fields.items():
            header[key] = value
        dicom = itk.GDCMImageIO.New()
        dicom.KeepOriginalUIDOn()
        file = str(folder / f"1-{first + z:03d}.dcm")
        itk.ImageFileWriter[type(image)].New(Input=image, FileName=file, ImageIO=dicom).Update()
    return folder


def _field(tag: str, length: int = 2) -> bytes:
    """Return the head of a field as it is stored, with implicit type and the length of its value in bytes."""
    group, element = (int(part, 16).to_bytes(2, "little") for part in tag.split("|"))
    return group + element + length.to_bytes(4, "little")


def _replace(file: Path, old: bytes, new: bytes) -> None:
    content = file.read_bytes()
    assert content.count(old) == 1
    file.write_bytes(content.replace(old, new))


def _hide(series: Path, tag: str) -> None:
    """Hide a field of the first slice, if it is there, under a tag that means nothing."""
    file, name = series / "1-001.dcm", _field(tag)[:4]
    file.write_bytes(file.read_bytes().replace(name, name[:2] + b"\xf1" + name[3:]))


def _place(height: float) -> np.ndarray:
    return np.array([ORIGIN[0], ORIGIN[1], ORIGIN[2] + height])


def _world(directions: np.ndarray, voxel: tuple[int, int, int]) -> np.ndarray:
    return LPS_TO_RAS * (np.array(ORIGIN) + directions @ (np.array(SPACING) * voxel))


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_voxels_are_where_they_are_in_the_world(tmp_path: Path, name: str) -> None:
    directions = ORIENTATIONS[name]
    image = read_scan(_write(tmp_path / "series", directions))
    assert series_problem(tmp_path / "series") is None
    assert tuple(image.shape) == SHAPE
    np.testing.assert_array_equal(image.numpy(), _volume())
    assert image.numpy()[5, 2, 1] == 3000
    np.testing.assert_allclose(image.affine.numpy() @ (5, 2, 1, 1), [*_world(directions, (5, 2, 1)), 1], atol=1e-3)
    # as ITK itself reads a sound series
    array, meta = ITKReader().get_data(ITKReader().read(tmp_path / "series"))
    np.testing.assert_array_equal(image.numpy(), array)
    np.testing.assert_allclose(image.affine.numpy(), meta["affine"], atol=1e-4)


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_slices_written_against_their_normal_keep_their_places(tmp_path: Path, name: str) -> None:
    directions = ORIENTATIONS[name] * [1, 1, -1]
    image = read_scan(_write(tmp_path / "series", directions))
    np.testing.assert_array_equal(image.numpy(), _volume()[:, :, ::-1])
    np.testing.assert_allclose(image.affine.numpy() @ (5, 2, 3, 1), [*_world(directions, (5, 2, 1)), 1], atol=1e-3)


def test_positions_decide_and_not_names_or_numbers(tmp_path: Path) -> None:
    order = [3, 0, 4, 1, 2]
    places = [_place(z * SPACING[2]) for z in order]
    image = read_scan(_write(tmp_path / "series", volume=_volume()[:, :, order], places=places))
    np.testing.assert_array_equal(image.numpy(), _volume())
    np.testing.assert_allclose(image.affine.numpy() @ (5, 2, 1, 1), [*_world(AXIAL, (5, 2, 1)), 1], atol=1e-3)


def test_rescale_slope_and_intercept_are_applied_slice_by_slice(tmp_path: Path) -> None:
    stored = np.ones(SHAPE, np.int16) * np.array([100, 50, 200, 100, 100], np.int16)
    series = _write(tmp_path / "series", volume=stored)
    for file, slope in zip(sorted(series.iterdir()), (b"1 ", b"2 ", b".5", b"1 ", b"1 "), strict=True):
        _replace(file, _field("0028|1053") + b"1 ", _field("0028|1053") + slope)
        _replace(file, _field("0028|1052") + b"0 ", _field("0028|1052") + b"-9")
    np.testing.assert_array_equal(read_scan(series).numpy(), np.full(SHAPE, 91.0))


def test_positions_may_be_rounded(tmp_path: Path) -> None:
    places = [_place(z * SPACING[2] + 0.004 * SPACING[2] * (-1) ** z) for z in range(5)]
    assert series_problem(_write(tmp_path / "series", places=places)) is None


@pytest.mark.parametrize("tag", ["0018|0050", "0018|0088"])
def test_a_single_slice_with_a_thickness_is_a_volume(tmp_path: Path, tag: str) -> None:
    size = {"volume": _volume()[:, :, 1:2], "spacing": (0.8, 0.6, 3.5)}
    series = _write(tmp_path / "series", ORIENTATIONS["coronal"], **size, **{tag: "3.5"})
    for other in {"0018|0050", "0018|0088"} - {tag}:
        _hide(series, other)
    image = read_scan(series)
    assert tuple(image.shape) == (*SHAPE[:2], 1)
    np.testing.assert_allclose(image.pixdim, (0.8, 0.6, 3.5), atol=1e-6)


def test_other_files_are_passed_over(tmp_path: Path) -> None:
    series = _write(tmp_path / "series")
    for name in ("LICENSE", "DICOMDIR", "notes.xml", "._1-001.dcm"):
        (series / name).write_bytes(b"words" * 100)
    _write(series / "other", first=9)
    np.testing.assert_array_equal(read_scan(series).numpy(), _volume())


def test_names_need_no_suffix(tmp_path: Path) -> None:
    series = _write(tmp_path / "series")
    for file in series.iterdir():
        file.rename(series / f"IM{file.stem}")
    np.testing.assert_array_equal(read_scan(series).numpy(), _volume())


def _places(change: Callable[[int], tuple[float, float, float]]) -> list[np.ndarray]:
    return [np.array(ORIGIN) + change(z) for z in range(5)]


LATER = _place(50)
MISTAKES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "empty": (lambda s: s.mkdir(), "holds no DICOM file"),
    "no DICOM": (lambda s: (s.mkdir(), (s / "a.txt").write_text("words")), "holds no DICOM file"),
    "gap": (
        lambda s: (_write(s), (s / "1-004.dcm").unlink()),
        "1-003.dcm and 1-005.dcm are 5 mm apart, and most other slices 2.5 mm",
    ),
    "uneven": (
        lambda s: _write(s, places=_places(lambda z: (0, 0, 2.5 * z + 0.1 * (z > 2)))),
        "1-003.dcm and 1-004.dcm are 2.6 mm apart",
    ),
    "slowly uneven": (lambda s: _write(s, places=_places(lambda z: (0, 0, 2.5 * z + 0.02 * z * z))), "mm apart"),
    "copied file": (
        lambda s: (_write(s), shutil.copy(s / "1-003.dcm", s / "copy of 3.dcm")),
        "1-003.dcm and copy of 3.dcm lie at one position",
    ),
    "all twice": (lambda s: (_write(s), _write(s, first=101)), "1-001.dcm and 1-101.dcm lie at one position"),
    "two at one place": (lambda s: _write(s, places=[ORIGIN] * 2), "lie at one position"),
    "two series": (lambda s: (_write(s), _write(s, uid="1.2.4", first=101)), "holds 2 series"),
    "two series side by side": (
        lambda s: (_write(s), _write(s, uid="1.2.4", first=101, places=_places(lambda z: (0, 0, 2.5 * (z + 5))))),
        "holds 2 series",
    ),
    "localizer": (
        lambda s: (_write(s), _write(s, ORIENTATIONS["coronal"], places=[ORIGIN], first=101)),
        "1-101.dcm has another orientation than 1-001.dcm",
    ),
    "slightly turned": (
        lambda s: (
            _write(s),
            _write(s, Rotation.from_euler("z", 0.5, degrees=True).as_matrix(), places=[LATER], first=101),
        ),
        "1-101.dcm has another orientation",
    ),
    "other size": (
        lambda s: (_write(s), _write(s, volume=_volume()[:-1], places=[LATER], first=101)),
        "1-101.dcm has another size than 1-001.dcm",
    ),
    "other pixels": (
        lambda s: (_write(s), _write(s, spacing=(0.9, 0.6, 2.5), places=[LATER], first=101)),
        "1-101.dcm has another pixel spacing",
    ),
    "tilted": (
        lambda s: _write(s, places=_places(lambda z: (0, 0.25 * z, 2.5 * z))),
        "its slices are sheared by 5.7 degrees",
    ),
    "moved": (
        lambda s: _write(s, places=_places(lambda z: (0.5 * (z == 2), 0, 2.5 * z))),
        "1-003.dcm is shifted sideways",
    ),
    "single": (
        lambda s: _hide(_write(s, places=[ORIGIN]), "0018|0088"),
        "holds a single slice, 1-001.dcm, whose thickness is not known",
    ),
    "single of no thickness": (
        lambda s: _hide(_write(s, places=[ORIGIN], **{"0018|0050": "0"}), "0018|0088"),
        "holds a single slice",
    ),
    "truncated": (
        lambda s: (_write(s), (s / "1-005.dcm").write_bytes((s / "1-005.dcm").read_bytes()[:-20])),
        "1-005.dcm is damaged",
    ),
    "not DICOM by its bytes": (lambda s: (_write(s), (s / "1-005.dcm").write_bytes(b"words")), "1-005.dcm is damaged"),
    "no position": (lambda s: _hide(_write(s), "0020|0032"), "1-001.dcm states no position"),
    "no orientation": (lambda s: _hide(_write(s), "0020|0037"), "1-001.dcm states no orientation"),
    "no pixel spacing": (lambda s: _hide(_write(s), "0028|0030"), "1-001.dcm states no pixel spacing"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_folder_that_is_no_volume_is_refused(tmp_path: Path, name: str) -> None:
    make, cause = MISTAKES[name]
    series = tmp_path / "series"
    make(series)
    problem = series_problem(series)
    assert problem is not None
    assert cause in problem.cause
    assert problem.file == str(series)
    assert problem.remedy
    with pytest.raises(DatalistError) as caught:
        read_scan(series)
    assert caught.value.problem == problem


def test_a_tilt_within_the_tolerance_is_read_as_it_is(tmp_path: Path) -> None:
    image = read_scan(_write(tmp_path / "series", places=_places(lambda z: (0, 0.01 * z, 2.5 * z))))
    place = LPS_TO_RAS * (np.array(ORIGIN) + np.array([5, 2, 4]) * SPACING + (0, 0.04, 0))
    np.testing.assert_allclose(image.affine.numpy() @ (5, 2, 4, 1), [*place, 1], atol=1e-3)
