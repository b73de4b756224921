# SPDX-License-Identifier: Apache-2.0
"""Names and colors of structures as viewers read them, and label maps that carry them."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from typer.testing import CliRunner

from metassl_monai.bundle import UserError
from metassl_monai.bundle.locate import copy_bundle
from metassl_monai.cli import app
from metassl_monai.data import read_scan
from metassl_monai.integrations.dicom_seg import write_dicom_seg
from metassl_monai.integrations.labels import ITK_SNAP_FILE, SLICER_FILE, named_labels, write_label_tables
from metassl_monai.integrations.seg_nrrd import write_seg_nrrd
from metassl_monai.planning.label_names import read_label_names

NAMES = {"0": "background", "1": "left ventricle", "2": "aorta", "3": "not there"}
VALUES = {"0": 0, "7": 1, "3": 2, "9": 3}
AFFINE = np.array([[0, -0.5, 0, 4], [0.6, 0, 0, -7], [0, 0, 2.5, 11], [0, 0, 0, 1.0]])


@pytest.fixture
def label_map(tmp_path):
    voxels = np.zeros((5, 6, 4), np.uint8)
    voxels[1:3, 2:4, 1:3] = 7
    voxels[4, 5, 0] = 3
    file = tmp_path / "case_seg.nii.gz"
    nibabel.save(nibabel.Nifti1Image(voxels, AFFINE), file)
    return file, voxels


@pytest.mark.parametrize("file", [SLICER_FILE, ITK_SNAP_FILE])
def test_tables_come_back_with_the_values_of_the_files(file, tmp_path):
    write_label_tables(named_labels(NAMES, VALUES), tmp_path)
    assert read_label_names([str(tmp_path / file)]) == {
        0: "background",
        7: "left ventricle",
        3: "aorta",
        9: "not there",
    }
    rows = [line.split() for line in (tmp_path / file).read_text().splitlines() if not line.startswith("#")]
    colors = [row[2:5] if file == SLICER_FILE else row[1:4] for row in rows]
    assert ["213", "94", "0"] in colors  # what pictures of this package draw the first structure in
    assert len({tuple(color) for color in colors}) == len(colors)


def test_slicerio_reads_names_colors_and_places(label_map, tmp_path):
    slicerio = pytest.importorskip("slicerio", reason="slicerio is not installed")
    pytest.importorskip("nrrd", reason="pynrrd is not installed")
    file, voxels = label_map
    write_seg_nrrd(file, named_labels(NAMES, VALUES), tmp_path / "case.seg.nrrd")
    read = slicerio.read_segmentation(str(tmp_path / "case.seg.nrrd"))
    assert np.array_equal(read["voxels"], voxels)
    assert np.allclose(read["ijkToLPS"], np.diag([-1, -1, 1, 1]) @ AFFINE)
    assert {s["labelValue"]: s["name"] for s in read["segments"]} == {7: "left ventricle", 3: "aorta", 9: "not there"}
    assert np.allclose(read["segments"][0]["color"], named_labels(NAMES, VALUES)[0].color)


def test_itk_finds_the_same_voxels_at_the_same_places(label_map, tmp_path):
    pytest.importorskip("slicerio", reason="slicerio is not installed")
    import itk

    file, voxels = label_map
    write_seg_nrrd(file, named_labels(NAMES, VALUES), tmp_path / "case.seg.nrrd")
    image = itk.imread(str(tmp_path / "case.seg.nrrd"))
    assert np.array_equal(itk.array_from_image(image).T, voxels)
    place = np.array(image.TransformIndexToPhysicalPoint([1, 2, 3]))
    assert np.allclose(place, (np.diag([-1, -1, 1, 1]) @ AFFINE @ [1, 2, 3, 1])[:3])


def as_scanners_write(series):
    """Add what ITK leaves out, and a DICOM SEG takes over."""
    import pydicom

    for file in series.glob("*.dcm"):
        header = pydicom.dcmread(file)
        header.FrameOfReferenceUID, header.SliceThickness = "1.2.3", 1.0
        for name in ("StudyID", "AccessionNumber", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime"):
            if name not in header:
                setattr(header, name, "")
        header.save_as(file)


def test_a_dicom_segmentation_lies_on_its_series(write_pancreas_ct, tmp_path):
    hd = pytest.importorskip("highdicom", reason="highdicom is not installed")
    write_pancreas_ct(tmp_path, [1], (12, 10, 6))
    series = next(path.parent for path in (tmp_path / "Pancreas-CT").rglob("*.dcm"))
    with pytest.raises(UserError, match="names no frame of reference"):
        write_dicom_seg(tmp_path / "seg.nii.gz", series, [], tmp_path / "seg.dcm")
    as_scanners_write(series)
    scan = read_scan(series)
    voxels = np.where(scan.numpy() > scan.numpy().mean(), 7, 0).astype(np.uint8)
    voxels[0, 0, 0] = 3
    nibabel.save(nibabel.Nifti1Image(voxels, scan.affine.numpy()), tmp_path / "seg.nii.gz")
    write_dicom_seg(tmp_path / "seg.nii.gz", series, named_labels(NAMES, VALUES), tmp_path / "seg.dcm")
    segmentation = hd.seg.segread(tmp_path / "seg.dcm")
    assert segmentation.SOPClassUID == "1.2.840.10008.5.1.4.1.1.66.4"
    names = [segmentation.get_segment_description(number).segment_label for number in segmentation.segment_numbers]
    assert names == ["left ventricle", "aorta", "not there"]
    volume = segmentation.get_volume(combine_segments=True)
    for value, number in ((7, 1), (3, 2)):
        places = np.argwhere(volume.array == number)
        expected = np.argwhere(voxels == value)
        assert len(places) == len(expected) > 0
        found = volume.map_indices_to_reference(places)
        there = (np.diag([-1, -1, 1]) @ nibabel.affines.apply_affine(scan.affine.numpy(), expected).T).T
        assert np.allclose(sorted(map(tuple, found.round(3))), sorted(map(tuple, there.round(3))), atol=2e-3)


def test_a_series_is_segmented_into_a_dicom_segmentation(write_pancreas_ct, tmp_path):
    hd = pytest.importorskip("highdicom", reason="highdicom is not installed")
    write_pancreas_ct(tmp_path, [1], (12, 10, 6))
    series = next(path.parent for path in (tmp_path / "Pancreas-CT").rglob("*.dcm"))
    as_scanners_write(series)
    bundle = copy_bundle("phantom_segmentation", tmp_path)
    parser = ConfigParser()
    parser.read_config(str(bundle / "configs" / "inference.json"))
    (bundle / "models").mkdir()
    torch.save(parser.get_parsed_content("network_def").state_dict(), bundle / "models" / "model.pt")
    arguments = ["infer", bundle, "--images", series, "--out", tmp_path / "out", "--also", "dicom-seg"]
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    (prediction,) = (tmp_path / "out").glob("*_seg.nii.gz")
    (segmentation,) = map(hd.seg.segread, (tmp_path / "out").glob("*_seg.dcm"))
    voxels = np.asarray(nibabel.load(prediction).dataobj)
    numbers = segmentation.get_volume(combine_segments=True).array
    assert np.bincount(numbers.ravel(), minlength=4).tolist() == np.bincount(voxels.ravel(), minlength=4).tolist()
