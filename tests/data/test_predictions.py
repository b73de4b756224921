# SPDX-License-Identifier: Apache-2.0
"""A prediction has its image's place, header and shape in the file, and a name that no other image's has."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import itk
import nibabel
import numpy as np
import pytest
import torch

from metassl_monai.data import SavePredictiond, prediction_mistakes, prediction_path, read_scan
from metassl_monai.data.loading import case_loading

QFORM = np.array([[1.5, 0, 0, -20], [0, 1.5, 0, -30], [0, 0, 8, 5], [0, 0, 0, 1.0]])
MOVED = QFORM + np.array([[0, 0, 0, 30], [0, 0, 0, 35], [0, 0, 0, 55], [0, 0, 0, 0]])
SHEARED = np.array([[1.5, -0.3, 0, -25], [0.3, 1.4, 0.2, -22], [0, 0, 8.8, 9], [0, 0, 0, 1.0]])
LEFT_HANDED = np.diag([-1.0, 1.0, 1.0, 1.0]) @ QFORM


def predict(image: Path, folder: Path, channels: int = 1, **options: Any) -> Path:
    """Save a prediction as inference does: whatever the network says, in the geometry of the loaded image."""
    item = case_loading("image")({"image": str(image)})
    item["pred"] = item["image"].repeat(channels, *[1] * (item["image"].ndim - 1)) > 50
    SavePredictiond("pred", folder / "out", image.parent, **options)(item)
    return prediction_path(image, image.parent, folder / "out", options.get("output_postfix", "seg"))


def itk_world(file: Path) -> list[np.ndarray]:
    image = itk.imread(str(file))
    return [np.array(image.TransformIndexToPhysicalPoint(index)) for index in ((0, 0, 0), (5, 4, 2))]


@pytest.mark.parametrize(
    ("sform", "qform", "codes", "units"),
    [
        (MOVED, QFORM, (4, 1), "mm"),
        (MOVED, QFORM, (0, 0), "unknown"),
        (MOVED, QFORM, (0, 1), "micron"),
        (MOVED, None, (2, 0), "mm"),
        (LEFT_HANDED, LEFT_HANDED, (1, 1), "mm"),
        (SHEARED, QFORM, (2, 1), "meter"),
    ],
)
def test_the_header_of_a_nifti_is_kept(sform: Any, qform: Any, codes: Any, units: str, tmp_path: Path) -> None:
    image: Any = nibabel.Nifti1Image(np.arange(7 * 6 * 4, dtype=np.int16).reshape(7, 6, 4), sform)
    image.set_qform(qform, codes[1])
    image.set_sform(sform, codes[0])
    image.header.set_xyzt_units(units)
    nibabel.save(image, tmp_path / "image.nii.gz")
    source, prediction = (
        nibabel.load(tmp_path / "image.nii.gz"),
        nibabel.load(predict(tmp_path / "image.nii.gz", tmp_path)),
    )
    assert prediction.shape == source.shape
    assert prediction.get_data_dtype() == np.uint8
    for field in ("sform_code", "qform_code", "xyzt_units", "srow_x", "quatern_b", "qoffset_x"):
        assert prediction.header[field].tolist() == source.header[field].tolist(), field
    assert prediction.header["pixdim"][:4].tolist() == source.header["pixdim"][:4].tolist()
    np.testing.assert_array_equal(prediction.affine, source.affine)
    assert np.asarray(prediction.dataobj).tolist() == (np.asarray(source.dataobj) > 50).astype(int).tolist()
    if sform is not SHEARED:  # which ITK refuses to read
        np.testing.assert_allclose(
            itk_world(tmp_path / "image.nii.gz"), itk_world(tmp_path / "out" / "image_seg.nii.gz"), atol=1e-6
        )


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_other_formats_become_niftis_in_the_same_place(suffix: str, tmp_path: Path) -> None:
    image = itk.image_from_array(np.arange(7 * 6 * 4, dtype=np.int16).reshape(4, 6, 7))
    image.SetSpacing([1.5, 1.25, 4.0])
    image.SetOrigin([10.0, -20.0, 30.0])
    c, s = np.cos(0.3), np.sin(0.3)
    image.SetDirection(np.array([[c, 0, s], [0, -1, 0], [-s, 0, c]]))
    itk.imwrite(image, str(tmp_path / f"image{suffix}"))
    file = predict(tmp_path / f"image{suffix}", tmp_path)
    np.testing.assert_allclose(itk_world(tmp_path / f"image{suffix}"), itk_world(file), atol=1e-4)
    np.testing.assert_allclose(nibabel.load(file).affine, read_scan(tmp_path / f"image{suffix}").affine, atol=1e-4)
    assert nibabel.load(file).header.get_xyzt_units()[0] == "mm"


@pytest.mark.parametrize("shape", [(7, 6, 1), (1, 6, 4), (7, 6, 4)])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_axis_stays(shape: tuple[int, ...], channels: int, tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(np.zeros(shape, np.int16), QFORM), tmp_path / "image.nii.gz")
    file = predict(tmp_path / "image.nii.gz", tmp_path, channels, output_postfix="p", output_dtype=torch.float32)
    assert nibabel.load(file).shape == (shape if channels == 1 else (*shape, channels))
    assert nibabel.load(file).get_data_dtype() == np.float32


def test_a_map_on_another_grid_has_that_grid_in_its_header(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(np.zeros((8, 6, 4), np.int16), MOVED), tmp_path / "image.nii.gz")
    item = case_loading("image")({"image": str(tmp_path / "image.nii.gz")})
    item["pred"] = item["image"][:, 2:]
    item["pred"].affine[:3, 3] += 2 * item["pred"].affine[:3, 0]
    SavePredictiond("pred", tmp_path / "out", tmp_path)(item)
    np.testing.assert_allclose(nibabel.load(tmp_path / "out/image_seg.nii.gz").affine, item["pred"].affine, atol=1e-5)


def test_equal_predictions_are_equal_files_and_nothing_else_is_left(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(np.zeros((8, 6, 4), np.int16), MOVED), tmp_path / "image.nii.gz")
    first = predict(tmp_path / "image.nii.gz", tmp_path).read_bytes()
    assert predict(tmp_path / "image.nii.gz", tmp_path).read_bytes() == first
    assert os.listdir(tmp_path / "out") == ["image_seg.nii.gz"]


@pytest.mark.parametrize(
    ("image", "prediction"),
    [
        ("a/scan.nii.gz", "a/scan_seg.nii.gz"),
        ("a/case.01.nii", "a/case.01_seg.nii.gz"),
        ("a/SCAN.NII.GZ", "a/SCAN_seg.nii.gz"),
        ("a/1.2.840.5.1", "a/1.2.840.5.1_seg.nii.gz"),
        ("a/1.2.840.5.2", "a/1.2.840.5.2_seg.nii.gz"),
        ("slide 1.JPG", "slide 1_seg.png"),
        ("Herz Ärzte/x.nrrd", "Herz Ärzte/x_seg.nii.gz"),
    ],
)
def test_names(image: str, prediction: str, tmp_path: Path) -> None:
    assert prediction_path(tmp_path / image, tmp_path, "out") == Path("out", prediction)


def test_a_link_keeps_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "a.nii").touch()
    (tmp_path / "b.nii").symlink_to("a.nii")
    (tmp_path / "link").symlink_to(tmp_path)
    assert prediction_path(tmp_path / "b.nii", tmp_path, "out") == Path("out/b_seg.nii.gz")
    assert prediction_path(tmp_path / "link" / "b.nii", tmp_path / "link", "out") == Path("out/b_seg.nii.gz")


def test_shared_predictions_and_overwritten_inputs_are_mistakes() -> None:
    sound = ["d/a.nii.gz", "d/b/a.nii.gz", "d/c.nii.gz", "d/c.nii.gz"]
    assert list(prediction_mistakes(sound, "d", "out")) == []
    [shared] = prediction_mistakes(["d/a.nii.gz", "d/a.nrrd", "d/b.nii"], "d", "out")
    assert "d/a.nii.gz, d/a.nrrd" in shared
    [overwritten] = prediction_mistakes(["d/a.nii.gz"], "d", "d", ["d/a_seg.nii.gz"])
    assert "d/a_seg.nii.gz: is an input" in overwritten
