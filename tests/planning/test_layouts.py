# SPDX-License-Identifier: Apache-2.0
"""Layouts of nnU-Net, the Decathlon, MONAI's and our own lists, and h5 files."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metassl_monai.data import check_datalist, load_datalist, read_datalist, read_scan
from metassl_monai.planning import collect_folder, image_cases

from .writing import SHAPE, a_label, an_image, write_scan


def write_json(file: Path, content: Any) -> Path:
    file.write_text(json.dumps(content))
    return file


def collect(images: Path, out: Path, **options: Any) -> tuple[Any, dict]:
    collected = collect_folder(images, out=out, **options)
    assert check_datalist(collected.datalist, collected.dataset_dir) == []
    return collected, read_datalist(collected.datalist)


def names(datalist: dict, *keys: str) -> list[str]:
    return sorted(item["case"] for key in keys for item in datalist[key])


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Two channels; cases 0 to 2, of which 0 and 1 are labeled, and test images, of which one is labeled."""
    folder = tmp_path / "Dataset001_Heart"
    for case in range(3):
        for channel in (0, 1):
            write_scan(folder / "imagesTr" / f"heart_{case:03d}_{channel:04d}.nii.gz", an_image(case + channel))
        if case < 2:
            write_scan(folder / "labelsTr" / f"heart_{case:03d}.nii.gz", a_label(1, 2))
    for case in (7, 8):
        for channel in (0, 1):
            write_scan(folder / "imagesTs" / f"heart_{case:03d}_{channel:04d}.nii.gz", an_image(case + channel))
    write_scan(folder / "labelsTs" / "heart_007.nii.gz", a_label(1))
    names = {"background": 0, "LV": 1, "RV": 2, "ignore": 3}
    write_json(folder / "dataset.json", {"channel_names": {"0": "T1", "1": "T2"}, "labels": names})
    return folder


def test_nnunet(raw: Path, tmp_path: Path) -> None:
    collected = collect_folder(raw, out=tmp_path / "out")
    datalist = read_datalist(collected.datalist)
    assert collected.layout == "nnU-Net"
    assert collected.channels == ("T1", "T2")
    assert collected.endings == ("0000", "0001")
    assert datalist["labels"] == {"0": "background", "1": "LV", "2": "RV"}
    assert datalist["ignore"] == 3
    assert names(datalist, "labeled") == ["heart_000", "heart_001"]
    assert names(datalist, "unlabeled") == ["heart_002"]
    assert names(datalist, "test") == ["heart_007"]
    assert datalist["labeled"][0]["image"] == [f"imagesTr/heart_000_000{channel}.nii.gz" for channel in (0, 1)]
    assert collected.remarks[0] == (
        f"1 images of imagesTs have no label and are left out; to learn from them, pass --unlabeled {raw / 'imagesTs'}"
    )
    assert [case.name for case in image_cases([raw / "imagesTs"], collected.endings)] == ["heart_007", "heart_008"]


def test_both_folders_of_nnunet_stand_for_the_folder_that_holds_them(raw: Path, tmp_path: Path) -> None:
    whole, _ = collect(raw, tmp_path / "out")
    collected = collect_folder(raw / "imagesTr", raw / "labelsTr", out=tmp_path / "two")
    assert collected.layout == "nnU-Net"
    assert read_datalist(collected.datalist) == read_datalist(whole.datalist)


def test_nnunet_learns_from_test_images_when_told_to(raw: Path, tmp_path: Path) -> None:
    collected = collect_folder(raw, unlabeled=[raw / "imagesTs"], out=tmp_path / "out")
    # heart_007, which is a test case, is none to learn from
    assert names(read_datalist(collected.datalist), "unlabeled") == ["heart_002", "heart_008"]
    assert not any("imagesTs" in remark for remark in collected.remarks)


def test_nnunet_of_one_channel_and_old_labels(raw: Path, tmp_path: Path) -> None:
    for file in raw.rglob("*_0001.nii.gz"):
        file.unlink()
    labels = {"0": "background", "1": "LV", "2": "RV"}
    write_json(raw / "dataset.json", {"modality": {"0": "CT"}, "labels": labels, "training": []})
    collected, datalist = collect(raw, tmp_path / "out")
    assert collected.channels == ()
    assert datalist["labeled"][0]["image"] == "imagesTr/heart_000_0000.nii.gz"
    assert datalist["labels"] == labels


def test_cases_that_are_numbered_like_channels_are_no_channels(tmp_path: Path) -> None:
    for number in range(4):
        write_scan(tmp_path / "scans" / f"case_{number:04d}.nii.gz", an_image(number))
    write_scan(tmp_path / "labels" / "case_0000.nii.gz", a_label())
    collected = collect_folder(tmp_path / "scans", tmp_path / "labels", out=tmp_path / "out")
    assert collected.cases["unlabeled"] == 3
    assert collected.channels == ()


def test_decathlon_with_a_fourth_axis(tmp_path: Path) -> None:
    for number in range(3):
        channels = np.stack([np.full(SHAPE, value, np.int16) for value in (1, 2)], -1)
        channels[0] += an_image(number, (7, 5, 2))
        write_scan(tmp_path / "imagesTr" / f"p_{number}.nii.gz", channels)
    write_scan(tmp_path / "imagesTs" / "p_9.nii.gz", np.zeros((*SHAPE, 2), np.int16))
    for number in (0, 1):
        write_scan(tmp_path / "labelsTr" / f"p_{number}.nii.gz", a_label(1))
    training = [
        {"image": f"./imagesTr/p_{number}.nii.gz", "label": f"./labelsTr/p_{number}.nii.gz"} for number in (0, 1)
    ]
    content = {
        "name": "Prostate",
        "modality": {"0": "T2", "1": "ADC"},
        "labels": {"0": "background", "1": "PZ", "2": "TZ"},
        "training": [*training, {"image": "./imagesTr/p_2.nii.gz"}],
        "test": ["./imagesTs/p_9.nii.gz"],
    }
    write_json(tmp_path / "dataset.json", content)
    collected, datalist = collect(tmp_path, tmp_path / "out")
    assert collected.channels == ("T2", "ADC")
    # no annotation has a TZ
    assert datalist["labels"] == {"0": "background", "1": "PZ"}
    assert names(datalist, "labeled") == ["imagesTr/p_0", "imagesTr/p_1"]
    assert names(datalist, "unlabeled") == ["imagesTr/p_2"]
    assert "1 validation or test images have no label" in collected.remarks[0]
    item = load_datalist(collected.datalist, "labeled", collected.dataset_dir)[0]
    assert read_scan(item["image"])[:, 1, 0, 0].tolist() == [1, 2]


def test_a_datalist_of_monai(folders: Path) -> None:
    def item(name: str) -> dict[str, str]:
        return {"image": f"scans/{name}.nii.gz", "label": f"labels/{name}.nii.gz"}

    content = {
        "training": [item("a"), item("b") | {"fold": 0}, {"image": "scans/e.nii.gz"}],
        "validation": [item("c")],
        "testing": [item("d")],
        "unlabeled": [{"image": "scans/f.nii.gz"}],
    }
    _, datalist = collect(write_json(folders / "list.json", content), folders / "out")
    assert names(datalist, "labeled") == ["scans/a", "scans/b"]
    assert names(datalist, "unlabeled") == ["scans/e", "scans/f"]
    assert names(datalist, "validation") == ["scans/c"]
    assert names(datalist, "test") == ["scans/d"]


def test_a_datalist_of_ours_stays_as_it_is(phantom: Path, tmp_path: Path) -> None:
    collected, datalist = collect(Path(phantom), tmp_path / "out")
    before = read_datalist(phantom)
    for key in ("labeled", "unlabeled", "validation", "test", "monitor"):
        assert names(datalist, key) == names(before, key)
    assert datalist["labels"] == before["labels"]
    assert collected.layout == "datalist"
    again = collect(Path(phantom), tmp_path / "again", validation=1)[1]
    assert (len(again["labeled"]), len(again["validation"])) == (2, 1)


def write_h5(file: Path, image: np.ndarray, label: np.ndarray | None) -> None:
    h5py = pytest.importorskip("h5py")
    file.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(file, "w") as content:
        content["image"] = image
        if label is not None:
            content["label"] = label


def test_h5_files_of_acdc(tmp_path: Path) -> None:
    image = np.arange(3 * 8 * 10, dtype=np.float64).reshape(3, 8, 10)  # from slice to slice, rows, columns
    label = np.zeros((3, 8, 10), np.uint8)
    label[1, 2, 5] = 3
    for patient in (1, 2):
        for frame in (1, 12):
            stem = f"patient00{patient}_frame{frame:02d}"
            write_h5(tmp_path / "data" / f"{stem}.h5", image, label if patient == 1 else None)
            write_h5(tmp_path / "data" / "slices" / f"{stem}_slice_0.h5", image[0], label[0])
    collected, datalist = collect(tmp_path / "data", tmp_path / "out")
    assert collected.layout == "h5"
    assert not collected.spacing_known
    assert datalist["source"]["spacing"] == "unknown"
    assert {item["subject"] for item in datalist["labeled"]} == {"patient001"}
    assert names(datalist, "unlabeled") == ["patient002_frame01", "patient002_frame12"]
    item = load_datalist(collected.datalist, "labeled", collected.dataset_dir)[0]
    volume = read_scan(item["image"])
    assert volume.shape == (10, 8, 3)
    assert volume[5, 2, 1] == image[1, 2, 5]
    assert np.argwhere(read_scan(item["label"]).numpy()).tolist() == [[5, 2, 1]]
    assert "4 files of single slices are left out, as there are volumes" in collected.remarks


def test_h5_files_of_the_left_atrium(tmp_path: Path) -> None:
    for name in ("A1", "B2"):
        write_h5(tmp_path / "la" / name / "mri_norm2.h5", np.zeros((12, 10, 8), np.float32), np.ones((12, 10, 8)))
    label = np.zeros((12, 10, 8), np.uint8)
    label[3] = 1
    write_h5(tmp_path / "la" / "A1" / "mri_norm2.h5", np.zeros((12, 10, 8), np.float32), label)
    datalist = collect(tmp_path / "la", tmp_path / "out")[1]
    assert names(datalist, "labeled") == ["A1", "B2"]


def test_h5_files_need_a_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.h5").touch()
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ValueError, match=r"a.h5: h5py is not installed; run `pip install h5py`"):
        collect_folder(tmp_path, out=tmp_path / "out")


TABLES = {
    "itk-snap.txt": """
################################################
# ITK-SnAP Label Description File
    0     0    0    0        0  0  0    "Clear Label"
    1   255    0    0        1  1  1    "left ventricle"
    7     0  255    0        1  1  1    "aorta"
""",
    "slicer.ctbl": """# Color table file aorta.ctbl
# 3 values
0 Background 0 0 0 0
1 left_ventricle 128 174 128 255
7 aorta 241 214 145 255
""",
    "slicer.csv": """LabelValue,Name,Color_R,Color_G,Color_B,Color_A
0,Background,0,0,0,0
1,left ventricle,128,174,128,255
7,aorta,241,214,145,255
""",
}


@pytest.mark.parametrize("name", TABLES)
def test_names_of_label_values_from_files(folders: Path, name: str) -> None:
    for case in "abcd":
        write_scan(folders / "labels" / f"{case}.nii.gz", a_label(1, 7))
    table = folders / name
    table.write_text(TABLES[name])
    options = {"label_names": [str(table)]}
    collected = collect_folder(folders / "scans", folders / "labels", out=folders / "out", **options)
    labels = read_datalist(collected.datalist)["labels"]
    assert labels == {"0": "background", "1": "left ventricle", "2": "aorta"}
    options = {"label_names": [str(table), "7=vein"]}
    collected = collect_folder(folders / "scans", folders / "labels", out=folders / "out", **options)
    assert read_datalist(collected.datalist)["labels"]["2"] == "vein"
