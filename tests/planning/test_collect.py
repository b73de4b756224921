# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import numpy as np

from metassl_monai.data import check_datalist, read_datalist
from metassl_monai.planning import collect_folder

from .writing import a_label, an_image, write_scan


def names(datalist: dict, key: str) -> list[str]:
    return [item["case"] for item in datalist[key]]


def test_two_folders_become_a_sound_datalist(folders: Path) -> None:
    collected = collect_folder(folders / "scans", folders / "labels", out=folders / "heart")
    datalist = read_datalist(collected.datalist)
    assert collected.dataset_dir == folders
    assert collected.cases == {"labeled": 3, "unlabeled": 2, "validation": 1, "test": 0, "monitor": 0}
    assert names(datalist, "unlabeled") == ["e", "f"]
    assert sorted(names(datalist, "labeled") + names(datalist, "validation")) == ["a", "b", "c", "d"]
    assert datalist["labels"] == {"0": "background", "1": "label 1"}
    assert "label_values" not in datalist
    assert {item["image"]: item["label"] for item in datalist["validation"]}.items() <= {
        f"scans/{name}.nii.gz": f"labels/{name}.nii.gz" for name in "abcd"
    }.items()
    assert check_datalist(collected.datalist, collected.dataset_dir) == []


def test_raw_values_of_any_type_become_classes(tmp_path: Path) -> None:
    for name in "ab":
        write_scan(tmp_path / "scans" / f"{name}.nii.gz", an_image())
    write_scan(tmp_path / "labels" / "a.nii.gz", a_label(3, 7, dtype=np.float64))
    collected = collect_folder(
        tmp_path / "scans", tmp_path / "labels", out=tmp_path / "out", label_names=["3=aorta", "7=vein"]
    )
    datalist = read_datalist(collected.datalist)
    assert datalist["labels"] == {"0": "background", "1": "aorta", "2": "vein"}
    assert datalist["label_values"] == {"0": 0, "3": 1, "7": 2}
    assert check_datalist(collected.datalist, collected.dataset_dir) == []
