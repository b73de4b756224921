# SPDX-License-Identifier: Apache-2.0
"""Images and annotations lie where their headers say, and training reads what check and evaluation read."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from metassl_monai.data import case_loading, check_datalist, labeled_box, read_label, read_scan
from metassl_monai.data.file_check import load_checked
from metassl_monai.data.problems import DatalistError

SHAPE = (12, 10, 4)
QFORM = np.array([[1.5, 0, 0, -20], [0, 1.5, 0, -30], [0, 0, 8, 5], [0, 0, 0, 1]])
SFORM = np.array([[1.5, -0.3, 0, -25], [0.3, 1.4, 0.2, -22], [0, 0, 8.8, 9], [0, 0, 0, 1]])
"""Of a registration with scales and shears: it does not fit the voxel sizes that the qform has."""


def nifti(sform_code: int, qform_code: int, array: np.ndarray | None = None) -> Any:
    image = nibabel.Nifti1Image(np.arange(480, dtype=np.int16).reshape(SHAPE) if array is None else array, SFORM)
    image.set_qform(QFORM, qform_code)
    image.set_sform(SFORM, sform_code)
    return image


@pytest.mark.parametrize(("codes", "affine"), [((2, 1), SFORM), ((4, 0), SFORM), ((0, 1), QFORM)])
def test_a_nifti_lies_where_nibabel_and_viewers_have_it(codes: tuple[int, int], affine: Any, tmp_path: Path) -> None:
    image = nifti(*codes)
    nibabel.save(image, tmp_path / "image.nii.gz")
    read = read_scan(tmp_path / "image.nii.gz")
    np.testing.assert_allclose(read.affine, affine, atol=1e-5)
    np.testing.assert_allclose(read.affine, nibabel.load(tmp_path / "image.nii.gz").affine)
    np.testing.assert_allclose(read.pixdim, np.linalg.norm(affine[:3, :3], axis=0), atol=1e-5)
    assert read.numpy().tolist() == np.asarray(image.dataobj).tolist()


def test_a_nifti_without_codes_has_its_voxel_sizes(tmp_path: Path) -> None:
    nibabel.save(nifti(0, 0), tmp_path / "image.nii.gz")
    np.testing.assert_allclose(read_scan(tmp_path / "image.nii.gz").pixdim, (1.5, 1.5, 8.0))


@pytest.mark.parametrize("suffix", [".nii", ".NII.GZ", ".hdr"])
def test_all_forms_of_nifti_are_read_by_the_same_rule(suffix: str, tmp_path: Path) -> None:
    kind = nibabel.Nifti1Pair if suffix == ".hdr" else nibabel.Nifti1Image
    source = nifti(2, 1)
    nibabel.save(kind(source.dataobj, None, source.header), tmp_path / f"image{suffix.lower()}")
    (tmp_path / f"image{suffix.lower()}").rename(tmp_path / f"image{suffix}")
    np.testing.assert_allclose(read_scan(tmp_path / f"image{suffix}").affine, SFORM, atol=1e-5)


LABELS = {"0": "background", "1": "right", "2": "wall", "3": "left"}


def write_data(folder: Path, raw: np.ndarray, affine: np.ndarray = QFORM, **extra: Any) -> Path:
    """Two cases with an annotation of these raw values."""
    items = []
    for name in "ab":
        nibabel.save(nibabel.Nifti1Image(np.full(raw.shape, ord(name), np.int16), QFORM), folder / f"{name}.nii")
        nibabel.save(nibabel.Nifti1Image(raw, affine), folder / f"{name}_label.nii")
        items.append({"image": f"{name}.nii", "label": f"{name}_label.nii", "subject": name, "case": name})
    lists = {"labeled": items[:1], "unlabeled": [], "validation": items[1:], "test": [], "monitor": []}
    (folder / "datalist.json").write_text(json.dumps({"labels": LABELS, **lists, **extra}))
    return folder / "datalist.json"


def drawn() -> np.ndarray:
    classes = np.zeros(SHAPE, np.int16)
    classes[2:5, 3:8, 0], classes[5:7, 3:8, 1], classes[7:9, 4:8, 2] = 1, 2, 3
    return classes


def load(datalist: Path, **options: Any) -> np.ndarray:
    item = {"image": str(datalist.parent / "a.nii"), "label": str(datalist.parent / "a_label.nii")}
    return case_loading(["image", "label"], datalist, **options)(item)["label"].numpy()[0]


RAW: dict[str, tuple[Any, dict[str, Any]]] = {
    "classes": (lambda label: label, {}),
    "spread": (
        lambda label: np.array([0, 500, 600, 420], np.int16)[label],
        {"label_values": {"0": 0, "500": 1, "600": 2, "420": 3}},
    ),
    "permuted": (
        lambda label: np.array([0, 3, 2, 1], np.int16)[label],
        {"label_values": {"0": 0, "3": 1, "2": 2, "1": 3}},
    ),
    "floats": (lambda label: label.astype(np.float64), {}),
    "negative": (
        lambda label: np.array([-1, 1, 2, 3], np.int16)[label],
        {"label_values": {"-1": 0, "1": 1, "2": 2, "3": 3}},
    ),
}


@pytest.mark.parametrize("name", RAW)
def test_training_reads_the_classes_that_check_and_evaluation_read(name: str, tmp_path: Path) -> None:
    change, extra = RAW[name]
    datalist = write_data(tmp_path, change(drawn()), **extra)
    assert check_datalist(datalist, tmp_path) == []
    content = json.loads(datalist.read_text())
    assert read_label(tmp_path / "a_label.nii", content).numpy().tolist() == drawn().tolist()
    assert load(datalist).tolist() == drawn().tolist()
    start, end = labeled_box(datalist, tmp_path, margin=(0.0, 0.0, 0.0))
    assert np.allclose(np.multiply(start, SHAPE), (2, 3, 0))
    assert np.allclose(np.multiply(end, SHAPE), (9, 8, 3))


def test_a_threshold_is_honored_everywhere(tmp_path: Path) -> None:
    raw = np.where(drawn() > 0, 200, 90).astype(np.int16)
    datalist = write_data(tmp_path, raw, label_threshold=128, labels={"0": "background", "1": "organ"})
    assert check_datalist(datalist, tmp_path) == []
    expected = (drawn() > 0).astype(int).tolist()
    assert read_label(tmp_path / "a_label.nii", json.loads(datalist.read_text())).numpy().tolist() == expected
    assert load(datalist).tolist() == expected
    assert labeled_box(datalist, tmp_path)[0][0] > 0


def test_an_orientation_is_honored_everywhere(tmp_path: Path) -> None:
    """Annotations stored from head to foot, on images stored from foot to head."""
    flipped = QFORM @ np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, -1, 3], [0, 0, 0, 1]])
    datalist = write_data(tmp_path, drawn()[..., ::-1].copy(), flipped, orientation="RAS")
    assert check_datalist(datalist, tmp_path) == []
    assert read_label(tmp_path / "a_label.nii", json.loads(datalist.read_text())).numpy().tolist() == drawn().tolist()
    assert load(datalist, orientation="RAS").tolist() == drawn().tolist()
    with pytest.raises(RuntimeError) as error:
        load(datalist)
    assert "beside its image" in str(error.value.__cause__)


@pytest.mark.parametrize(("mm", "fits"), [(0.0009, True), (0.01, True), (0.05, False)])
def test_affines_that_differ_by_a_hair_are_one_grid(mm: float, fits: bool, tmp_path: Path) -> None:
    moved = QFORM.copy()
    moved[0, 3] += mm
    datalist = write_data(tmp_path, drawn(), moved)
    assert (check_datalist(datalist, tmp_path) == []) == fits
    item = {"image": str(tmp_path / "a.nii"), "label": str(tmp_path / "a_label.nii")}
    loading = case_loading(["image", "label"], datalist)
    if fits:
        case = loading(item)
        assert case["label"].affine.equal(case["image"].affine)  # to the last bit, for what resamples both
    else:
        with pytest.raises(RuntimeError) as error:
            loading(item)
        assert isinstance(error.value.__cause__, DatalistError)


def test_without_itk_all_but_its_files_are_read_and_those_say_what_to_install(
    write_nrrd: Callable[[Path, np.ndarray], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nibabel.save(nifti(0, 1), tmp_path / "image.nii.gz")
    write_nrrd(tmp_path / "image.nrrd", np.zeros(SHAPE, dtype=np.int16))
    (tmp_path / "series").mkdir()
    monkeypatch.setitem(sys.modules, "itk", None)
    assert read_scan(tmp_path / "image.nii.gz").shape == SHAPE
    for name in ("image.nrrd", "series"):
        with pytest.raises(DatalistError, match=f"{name}: is read by ITK, .* pip install itk-io"):
            read_scan(tmp_path / name)
        _, (problem,) = load_checked(str(tmp_path / name), kind=None)
        assert problem.cause == "is read by ITK, which is not installed"
