# SPDX-License-Identifier: Apache-2.0
"""Images of several channels, from the datalist to the prediction's file."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

from metassl_monai.bundle.errors import user_mistake
from metassl_monai.bundle.preflight import check_inference, check_volumes
from metassl_monai.bundle.run_settings import _Walk
from metassl_monai.data import (
    SavePredictiond,
    case_loading,
    check_datalist,
    check_images,
    load_datalist,
    prediction_mistakes,
    prediction_path,
    read_scan,
    validate_datalist,
)

AFFINE = np.array([[-0.9, 0.1, 0, 5], [0.1, 0.9, 0, -7], [0, 0, 3, 2], [0, 0, 0, 1]])
SHAPE = (6, 5, 4)


def save(file: Path, voxels: np.ndarray, affine: np.ndarray = AFFINE) -> str:
    file.parent.mkdir(exist_ok=True, parents=True)
    nibabel.save(nibabel.Nifti1Image(voxels, affine), file)
    return str(file)


def content(image: object, channels: object = ("T1", "T2")) -> dict:
    item = {"image": image, "label": "a_label.nii.gz", "subject": "a", "case": "a"}
    names = list(channels) if isinstance(channels, tuple) else channels
    lists = {key: [] for key in ("unlabeled", "validation", "test", "monitor")}
    return {"labels": {"0": "background", "1": "heart"}, "channels": names, "labeled": [item], **lists}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A case ``a`` of two channels, in two files and in one, and its annotation."""
    channels = [np.full(SHAPE, value, np.float32) for value in (1, 2)]
    for number, channel in enumerate(channels):
        channel[0, 0, 0] = 10 + number
        save(tmp_path / f"a_000{number}.nii.gz", channel)
    save(tmp_path / "a4d.nii.gz", np.stack(channels, -1))
    label = np.zeros(SHAPE, np.uint8)
    label[2:4] = 1
    save(tmp_path / "a_label.nii.gz", label)
    return tmp_path


def problems(folder: Path, datalist: dict) -> list[str]:
    file = folder / "datalist.json"
    file.write_text(json.dumps(datalist))
    return [f"{Path(problem.file).name}: {problem.cause}" for problem in check_datalist(file, folder)]


TWO = ["a_0000.nii.gz", "a_0001.nii.gz"]


@pytest.mark.parametrize("image", [TWO, "a4d.nii.gz"])
def test_channels_are_checked_and_loaded_alike_from_two_files_and_from_one(folder: Path, image: object) -> None:
    assert problems(folder, content(image)) == []
    datalist = folder / "datalist.json"
    item = load_datalist(datalist, "labeled", folder)[0]
    case = case_loading(["image", "label"], datalist, "RAS")(item)
    assert case["image"].shape == (2, *SHAPE)
    # RAS turns the first axis round, whose affine entry is negative
    assert case["image"][:, -1, 0, 0].tolist() == [10, 11]
    assert case["image"][:, 0, 0, 0].tolist() == [1, 2]
    assert case["label"].shape == (1, *SHAPE)
    volume = read_scan(item["image"], "RAS")
    assert torch.equal(volume.as_tensor(), case["image"].as_tensor())


MISTAKES = {
    "one file for two channels": (content(TWO[:1]), "`labeled` item 0 has 1 image file for 2 channels"),
    "a file twice": (content([TWO[0], TWO[0]]), "`labeled` item 0 names a file for two channels"),
    "no channels": (
        {key: value for key, value in content(TWO).items() if key != "channels"},
        "`labeled` item 0 has 2 image files for 1 channels",
    ),
    "channels are numbers": (content(TWO, [1, 2]), "`channels` is not a list of names"),
    "one name": (content(TWO, ("T1", "T1")), "two of the `channels` T1, T1 have one name"),
    "an empty path": (content([TWO[0], ""]), "`labeled` item 0 has no `image`"),
    "a path outside": (content([TWO[0], "../b.nii"]), "the `image` of `labeled` item 0, ../b.nii, has a '..' in it"),
    "the label is a channel": (
        content([TWO[0], "a_label.nii.gz"]),
        "a_label.nii.gz is named as an image and as a label",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_structure_of_channels(name: str) -> None:
    datalist, cause = MISTAKES[name]
    with pytest.raises(ValueError, match=r"datalist.json") as error:
        validate_datalist(datalist, "datalist.json")
    assert cause in str(error.value)


def test_a_channel_of_two_cases_is_named() -> None:
    datalist = content(TWO)
    other = {"image": ["b_0000.nii.gz", TWO[1]], "label": "b_label.nii.gz", "subject": "b", "case": "b"}
    datalist["validation"] = [other]
    with pytest.raises(ValueError, match=r"`labeled` and `validation` share image a_0001.nii.gz"):
        validate_datalist(datalist, "datalist.json")


def test_a_linked_channel_is_found(folder: Path) -> None:
    (folder / "b_0001.nii.gz").symlink_to("a_0001.nii.gz")
    save(folder / "b_0000.nii.gz", np.zeros(SHAPE, np.float32))
    datalist = content(TWO)
    datalist["unlabeled"] = [{"image": ["b_0000.nii.gz", "b_0001.nii.gz"], "subject": "b", "case": "b"}]
    cause = "the image in `unlabeled` is the same file as a_0001.nii.gz in `labeled`"
    assert problems(folder, datalist) == [f"b_0001.nii.gz: {cause}"]


def test_every_channel_is_read(folder: Path) -> None:
    moved = AFFINE.copy()
    moved[0, 3] += 3
    save(folder / "a_0001.nii.gz", np.zeros(SHAPE, np.float32), moved)
    assert problems(folder, content(TWO)) == ["a_0001.nii.gz: lies up to 3.29 voxels beside a_0000.nii.gz"]
    save(folder / "a_0001.nii.gz", np.zeros((6, 5, 3), np.float32))
    assert problems(folder, content(TWO)) == [
        "a_0001.nii.gz: its shape (6, 5, 3) is not (6, 5, 4), that of a_0000.nii.gz"
    ]
    with pytest.raises(RuntimeError) as error:
        case_loading("image")({"image": [str(folder / name) for name in TWO]})
    assert "a_0001.nii.gz: its shape (6, 5, 3) is not (6, 5, 4)" in str(user_mistake(error.value))
    (folder / "a_0001.nii.gz").unlink()
    assert problems(folder, content(TWO)) == ["a_0001.nii.gz: the file is missing"]
    assert problems(folder, content("a_0000.nii.gz")) == ["a_0000.nii.gz: is 3D (6 x 5 x 4), and there are 2 channels"]


def test_a_film_is_no_image_of_one_channel(folder: Path) -> None:
    assert [problem.cause for problem in check_images([folder / "a4d.nii.gz"])] == [
        "is 4D (6 x 5 x 4 x 2), not 2D or 3D"
    ]
    assert check_images([folder / "a4d.nii.gz", [str(folder / name) for name in TWO]], "volume", channels=2) == []


def test_a_fourth_axis_of_one_is_none(folder: Path) -> None:
    voxels = read_scan(folder / "a_0000.nii.gz")
    save(folder / "a_0000.nii.gz", voxels.numpy()[..., None])
    save(folder / "a_label.nii.gz", read_scan(folder / "a_label.nii.gz").numpy()[..., None].astype(np.uint8))
    datalist = {key: value for key, value in content("a_0000.nii.gz").items() if key != "channels"}
    assert problems(folder, datalist) == []
    item = load_datalist(folder / "datalist.json", "labeled", folder)[0]
    case = case_loading(["image", "label"], folder / "datalist.json")(item)
    assert case["image"].shape == case["label"].shape == (1, *SHAPE)
    assert torch.equal(read_scan(item["image"]).as_tensor(), voxels.as_tensor())


def test_the_prediction_is_named_after_what_the_files_share(folder: Path, tmp_path: Path) -> None:
    files = [str(folder / name) for name in TWO]
    expected = tmp_path / "out" / "a_seg.nii.gz"
    assert prediction_path(files, folder, tmp_path / "out") == expected
    image = case_loading("image")({"image": files})["image"]
    prediction = (image[:1] > 5).float()
    SavePredictiond("pred", tmp_path / "out", folder)({"pred": prediction})
    written = nibabel.load(expected)
    np.testing.assert_allclose(written.affine, AFFINE, atol=1e-6)
    assert np.argwhere(written.get_fdata()).tolist() == [[0, 0, 0]]
    assert list(prediction_mistakes([files], folder, tmp_path / "out")) == []
    (twin,) = prediction_mistakes([files, folder / "a.nii.gz"], folder, tmp_path / "out")
    assert "would both be segmented into" in twin


def test_inference_checks_every_file_of_an_image(folder: Path) -> None:
    (folder / "model.pt").touch()
    datalist = folder / "list.json"
    datalist.write_text(json.dumps({"test": [{"image": TWO}]}))
    check_inference(str(folder / "model.pt"), str(folder), str(datalist), "test")
    check_volumes([[str(folder / name) for name in TWO]], str(folder), str(folder / "out"), channels=2)
    datalist.write_text(json.dumps({"test": [{"image": [TWO[0], "nowhere.nii.gz"]}]}))
    with pytest.raises(ValueError, match=r"nowhere.nii.gz: the file is missing"):
        check_inference(str(folder / "model.pt"), str(folder), str(datalist), "test")


def test_the_record_of_a_run_names_every_channel(folder: Path) -> None:
    item = {"image": [str(folder / name) for name in TWO], "label": str(folder / "a_label.nii.gz")}
    parser = ConfigParser({"dataset_dir": str(folder), "cases": [item], "used": "$@cases"})
    entries = dict(_Walk(parser).entries(["used"]))
    assert entries["used"] == ["a_0000.nii.gz + a_0001.nii.gz + a_label.nii.gz"]
