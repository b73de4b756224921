# SPDX-License-Identifier: Apache-2.0
"""Images of any format become label maps over them, whatever else is wrong with the others."""

from __future__ import annotations

import json
import subprocess
import sys

import nibabel
import numpy as np
import pytest
import torch
from nibabel.affines import apply_affine
from PIL import Image
from typer.testing import CliRunner

from metassl_monai.cli import app
from metassl_monai.data import read_scan

OBLIQUE = nibabel.affines.from_matvec(
    np.array([[0.9, -0.3, 0.1], [0.3, 0.8, -0.4], [0.05, 0.4, 2.8]]) @ np.diag([1.2, 1.5, 1.0]), [-40, 17, 250]
)
LEFT_HANDED = np.array([[1.5, 0, 0, -20], [0, 1.2, 0, 30], [0, 0, 3, 5], [0, 0, 0, 1]])
SHEARED = np.array([[1.5, 0.3, 0, -20], [0, 1.2, 0, 30], [0, 0.2, 3, 5], [0, 0, 0, 1.0]])
assert np.linalg.det(OBLIQUE) > 0
TABLES = {"labels.ctbl", "labels_itksnap.txt"}
"""Names and colors of the structures, which lie beside the predictions."""


def metassl(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def blob(shape=(24, 20, 6), low=(5, 11, 2), high=(12, 16, 4)):
    """A box of 100 on noise around 0; its voxels."""
    box = np.zeros(shape, bool)
    box[tuple(map(slice, low, high))] = True
    return np.where(box, 100, np.random.default_rng(0).integers(0, 20, shape)).astype(np.int16), box


def write(file, voxels, affine=LEFT_HANDED):
    file.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(voxels, affine), file)
    return file


def voxels_of(file):
    return np.asarray(nibabel.load(file).dataobj)


@pytest.mark.parametrize(
    "affine", [OBLIQUE, OBLIQUE @ np.diag([-1, 1, 1, 1]), LEFT_HANDED @ np.diag([-1, 1, 1, 1]), SHEARED]
)
def test_a_prediction_lies_over_its_image_in_the_world(affine, bright, tmp_path):
    voxels, box = blob()
    write(tmp_path / "scans" / "a.nii.gz", voxels, affine)
    result = metassl("infer", bright(), "--images", tmp_path / "scans", "--out", tmp_path / "out", "--device", "cpu")
    assert result.exit_code == 0, result.output
    prediction = nibabel.load(tmp_path / "out" / "a_seg.nii.gz")
    found = apply_affine(prediction.affine, np.argwhere(np.asarray(prediction.dataobj) == 1)).mean(axis=0)
    assert np.allclose(found, apply_affine(affine, np.argwhere(box)).mean(axis=0), atol=0.5)
    # resampling to the network's size and back moves edges by less than half a voxel
    assert np.mean((np.asarray(prediction.dataobj) == 1) == box) > 0.99


@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
def test_a_prediction_lies_over_an_image_of_another_format(suffix, bright, tmp_path):
    import itk

    voxels, box = blob()
    image = itk.image_from_array(np.ascontiguousarray(voxels.T))
    image.SetSpacing([1.5, 1.2, 3.0])
    image.SetOrigin([10.0, -7.0, 30.0])
    direction = np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, -1.0]])
    image.SetDirection(direction)
    (tmp_path / "scans").mkdir()
    itk.imwrite(image, str(tmp_path / "scans" / f"a.1{suffix}"))
    result = metassl("infer", bright(), "--images", tmp_path / "scans", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    prediction = nibabel.load(tmp_path / "out" / "a.1_seg.nii.gz")
    found = apply_affine(prediction.affine, np.argwhere(np.asarray(prediction.dataobj) == 1)).mean(axis=0)
    to_left_back = direction @ (np.argwhere(box).mean(axis=0) * [1.5, 1.2, 3.0]) + [10, -7, 30]
    assert np.allclose(found, to_left_back * [-1, -1, 1], atol=0.5)


def test_label_values_of_the_annotations_come_back(bright, tmp_path):
    voxels, box = blob()
    second = np.roll(voxels, 9, axis=0)
    for channel, array in (("0000", voxels), ("0001", second)):
        write(tmp_path / "scans" / f"case_{channel}.nii.gz", array)
    bundle = bright(
        2,
        label_values={"7": 2, "0": 0, "3": 1},
        channels=["0000", "0001"],
        source={"endings": ["0000", "0001"]},
        labeled=[{"image": ["a", "b"], "label": "c", "subject": "a", "case": "a"}],
    )
    arguments = ["--images", tmp_path / "scans", "--out", tmp_path / "out", "--probabilities", "--uncertainty"]
    result = metassl("infer", bundle, *arguments)
    assert result.exit_code == 0, result.output
    # one prediction a case, named without the endings of its channels
    names = {"case_seg.nii.gz", "case_probabilities.nii.gz", "case_uncertainty.nii.gz"}
    assert {file.name for file in (tmp_path / "out").iterdir()} == names | TABLES
    prediction = voxels_of(tmp_path / "out" / "case_seg.nii.gz")
    assert prediction.dtype == np.uint8
    assert np.unique(prediction).tolist() == [0, 3, 7]
    assert np.mean((prediction == 3) == box) > 0.99
    assert np.mean((prediction == 7) == np.roll(box, 9, axis=0)) > 0.99
    probabilities = voxels_of(tmp_path / "out" / "case_probabilities.nii.gz")
    assert probabilities.shape == (*box.shape, 3)
    assert np.allclose(probabilities.sum(axis=-1), 1, atol=1e-5)
    assert np.array_equal(np.array([0, 3, 7])[probabilities.argmax(-1)], prediction)
    uncertainty = voxels_of(tmp_path / "out" / "case_uncertainty.nii.gz")
    assert 0 <= uncertainty.min() <= uncertainty.max() <= np.log(3) + 1e-5


def test_evaluate_maps_raw_values_only_when_told(bright, tmp_path):
    data, (voxels, box) = tmp_path / "data", blob()
    image, label = write(data / "a.nii.gz", voxels), write(data / "b.nii.gz", np.where(box, 7, 0).astype(np.uint8))
    item = {"image": image.name, "label": label.name, "subject": "b", "case": "b"}
    other = {**item, "image": "x.nii.gz", "label": "y.nii.gz", "subject": "x", "case": "x"}
    bundle = bright(label_values={"0": 0, "7": 1}, validation=[item], labeled=[other])
    assert metassl("infer", bundle, "--images", image, "--out", tmp_path / "out").exit_code == 0
    assert set(np.unique(voxels_of(tmp_path / "out" / "a_seg.nii.gz"))) == {0, 7}
    where = ["--datalist", bundle / "datalist.json", "--dataset-dir", data, "--predictions", tmp_path / "out"]
    told = metassl("evaluate", *where, "--out", tmp_path / "scores", "--raw")
    assert told.exit_code == 0, told.output
    assert "vessel" in told.output
    untold = metassl("evaluate", *where, "--out", tmp_path / "scores")
    assert untold.exit_code == 1
    assert "--raw" in untold.output


def test_a_damaged_image_costs_the_others_nothing(bright, tmp_path):
    voxels, box = blob()
    for name in ("a", "b", "sub/c"):
        file = write(tmp_path / "scans" / f"{name}.nii.gz", voxels)
    damaged = tmp_path / "scans" / "b.nii.gz"
    damaged.write_bytes(damaged.read_bytes()[:400])
    program = "from metassl_monai.cli import main; main()"
    arguments = ["infer", bright(), "--images", tmp_path / "scans", "--out", tmp_path / "scans" / "predictions"]
    command = [sys.executable, "-W", "ignore", "-c", program, *map(str, arguments)]
    for _ in range(2):  # the second time there are predictions below the folder of the images
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert result.returncode == 1, result.stderr
        assert "Traceback" not in result.stderr
        assert len([line for line in result.stderr.splitlines() if str(damaged) in line]) == 1
        assert result.stderr.splitlines()[-1].startswith("1 of 3 images failed")
        files = sorted((tmp_path / "scans" / "predictions").rglob("*.nii.gz"))
        assert [file.name for file in files] == ["a_seg.nii.gz", "c_seg.nii.gz"]
        assert {file.name for file in (tmp_path / "scans" / "predictions").rglob("*.*")} - TABLES == {
            file.name for file in files
        }
    assert files[1].parent.name == "sub"
    assert np.mean((voxels_of(files[1]) == 1) == box) > 0.99
    assert file.is_file()


@pytest.mark.parametrize("failing", ["read", "__call__"])
def test_an_image_that_fails_on_the_way_is_named_in_one_line(failing, bright, tmp_path, monkeypatch):
    from metassl_monai.apps import infer

    class Failing(infer.Segmenter):
        def read(self, files):
            if failing == "read" and files[0].endswith("a.nii.gz"):
                raise RuntimeError("out of memory:\n  tried to allocate") from MemoryError("no\nroom")
            return super().read(files)

        def __call__(self, image):
            if failing == "__call__" and image["image"].meta["filename_or_obj"].endswith("a.nii.gz"):
                raise RuntimeError("out of memory:\n  tried to allocate") from MemoryError("no\nroom")
            return super().__call__(image)

    monkeypatch.setattr(infer, "Segmenter", Failing)
    for name in ("a", "b"):
        write(tmp_path / "scans" / f"{name}.nii.gz", blob()[0])
    result = metassl("infer", bright(), "--images", tmp_path / "scans", "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert f"{tmp_path / 'scans' / 'a.nii.gz'}: MemoryError: no\n" in result.output
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"b_seg.nii.gz"} | TABLES


def test_several_files_and_folders_may_follow(bright, tmp_path):
    files = [write(tmp_path / place / "scan.nii.gz", blob()[0]) for place in ("one", "two", "three")]
    result = metassl("infer", bright(), "--images", files[0], tmp_path / "two", files[2], "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    found = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.nii.gz")}
    assert found == {"one/scan_seg.nii.gz", "two/scan_seg.nii.gz", "three/scan_seg.nii.gz"}


def test_pictures_become_pictures_with_the_values_of_their_masks(tmp_path, bright):
    bundle = bright(label_values={"0": 0, "255": 1})
    file = bundle / "configs" / "inference.json"
    config = json.loads(file.read_text())
    transforms = config["preprocessing"]["transforms"]
    transforms[2]["spatial_size"] = "@spatial_size"
    transforms[2]["mode"] = "bilinear"
    config["inferer"] = {"_target_": "SimpleInferer"}
    config["checks"][-1] = config["checks"][-1][:-1] + ", 'picture')"
    file.write_text(json.dumps(config))
    voxels, box = blob((40, 30, 1), (5, 11, 0), (20, 26, 1))
    (tmp_path / "photos").mkdir()
    Image.fromarray(voxels[..., 0].astype(np.uint8).T).save(tmp_path / "photos" / "a b.png")
    result = metassl("infer", bundle, "--images", tmp_path / "photos", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    prediction = np.asarray(Image.open(tmp_path / "out" / "a b_seg.png")).T
    assert np.unique(prediction).tolist() == [0, 255]
    assert np.mean((prediction == 255) == box[..., 0]) > 0.97


def test_weights_of_two_networks_find_their_overlay(bright, tmp_path):
    bundle = bright()
    one = {"_target_": "torch.nn.Conv2d", "in_channels": 1, "out_channels": 2, "kernel_size": 1}
    two = {"_target_": "metassl_monai.networks.MeanOfTwo", "first": one, "second": dict(one)}
    (bundle / "configs" / "mean_of_two.json").write_text(json.dumps({"_desc_": "two", "network_def": two}))
    model = bundle / "models" / "model.pt"
    weights = torch.load(model)
    torch.save({f"{name}.{key}": it for name in ("first", "second") for key, it in weights.items()}, model)
    voxels, box = blob()
    image = write(tmp_path / "a.nii.gz", voxels)
    result = metassl("infer", bundle, "--images", image, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert np.mean((voxels_of(tmp_path / "out" / "a_seg.nii.gz") == 1) == box) > 0.99


def test_a_dicom_series_becomes_a_nifti_over_it(bright, tmp_path, write_pancreas_ct):
    write_pancreas_ct(tmp_path / "release", [1], (30, 28, 20), "RAS")
    series = next(tmp_path.rglob("*.dcm")).parent
    result = metassl("infer", bright(), "--images", series, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    scan, prediction = read_scan(series), nibabel.load(tmp_path / "out" / f"{series.name}_seg.nii.gz")
    assert prediction.shape == tuple(scan.shape)
    assert np.allclose(prediction.affine, scan.affine, atol=1e-4)
    inside = np.asarray(prediction.dataobj) == 1
    assert scan.numpy()[inside].min() > scan.numpy()[~inside].mean()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--images", "scans"], "--images: needs --out"),
        (["--images", "scans", "--out", "scans"], "is the folder of the images"),
        (["--images", "nowhere", "--out", "out"], "nowhere: the file or folder is missing"),
        (["--images", "scans", "--out", "out", "--ckpt_path", "x"], "--ckpt_path: does not go with --images"),
        (["--images", "scans", "--out", "out", "--checkpoint", "x.pt"], "no network at x.pt"),
        (["--images", "scans", "--out", "out", "--overlap", "1"], "--overlap 1: must be a number"),
        (["--images", "scans", "--out", "out", "--overlap", "0.5"], "--overlap: heart segments"),
        (["--images", "scans", "--out", "out", "--device", "gpu"], "--device gpu: cannot be used here"),
        (["--images", "two", "--out", "out"], "has the same name as"),
        (["--out", "out"], "--out: goes with --images only"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value[2:]),
)
def test_a_mistake_is_one_message(arguments, message, bright, tmp_path, monkeypatch):
    bundle = bright()
    monkeypatch.chdir(tmp_path)
    for name in ("scans/a.nii.gz", "two/a.nii.gz", "two/a.nii"):
        write(tmp_path / name, blob()[0])
    result = metassl("infer", bundle, *arguments)
    assert result.exit_code == 1
    assert message in result.output
    assert not (tmp_path / "out").exists()


def test_further_formats_lie_beside_the_prediction(bright, tmp_path):
    slicerio = pytest.importorskip("slicerio", reason="slicerio is not installed")
    voxels, _ = blob()
    write(tmp_path / "scans" / "site" / "a.nii.gz", voxels)
    bundle = bright(label_values={"0": 0, "7": 1})
    arguments = ["--images", tmp_path / "scans", "--out", tmp_path / "out", "--also", "seg.nrrd"]
    result = metassl("infer", bundle, *arguments)
    assert result.exit_code == 0, result.output
    segmentation = slicerio.read_segmentation(str(tmp_path / "out" / "site" / "a.seg.nrrd"))
    assert [(part["name"], part["labelValue"]) for part in segmentation["segments"]] == [("vessel", 7)]
    assert np.array_equal(segmentation["voxels"], voxels_of(tmp_path / "out" / "site" / "a_seg.nii.gz"))


@pytest.mark.parametrize(
    ("also", "message"), [("stl", "is no format"), ("dicom-seg", "DICOM"), ("seg.nrrd", "pip install slicerio")]
)
def test_a_format_that_cannot_be_written_is_refused_before_anything_is(also, message, bright, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "slicerio", None)
    monkeypatch.setitem(sys.modules, "highdicom", sys)
    write(tmp_path / "scans" / "a.nii.gz", blob()[0])
    arguments = ["--images", tmp_path / "scans", "--out", tmp_path / "out", "--also", also]
    result = metassl("infer", bright(), *arguments)
    assert result.exit_code == 1
    assert message in str(result.exception)
    assert not (tmp_path / "out").exists()
