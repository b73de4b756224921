# SPDX-License-Identifier: Apache-2.0
"""The ACDC reader on a tiny folder in the official layout, and on the real release where it is at hand."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from metassl_monai.data import READERS, DatalistError, check_datalist, prepare_acdc, validate_datalist, write_datalist

# The first three of the published training list, two others of it, one for validation and one for testing.
PATIENTS = ["patient099", "patient038", "patient050", "patient100", "patient058", "patient002", "patient001"]
DATA = Path(os.environ.get("METASSL_DATA", Path(__file__).parents[3] / "shared" / "data")) / "acdc"


def _add_patient(training: Path, name: str) -> None:
    folder = training / name
    folder.mkdir(parents=True)
    (folder / "Info.cfg").write_text("ED: 1\nES: 9\nGroup: NOR\n")
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 2, 3), np.int16), np.eye(4)), folder / f"{name}_4d.nii.gz")
    label = np.arange(32, dtype=np.uint8).reshape(4, 4, 2) % 4
    for frame in ("frame01", "frame09"):
        # of each frame its own, since a copy of an image must not be tested on
        image = label + np.int16(10 * int(name[-3:]) + int(frame[-2:]))
        nibabel.save(nibabel.Nifti1Image(image, np.eye(4)), folder / f"{name}_{frame}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(label, np.eye(4)), folder / f"{name}_{frame}_gt.nii.gz")


@pytest.fixture
def release(tmp_path: Path) -> Path:
    for name in PATIENTS:
        _add_patient(tmp_path / "acdc" / "training", name)
    return tmp_path / "acdc"


def _subjects(datalist: dict[str, Any], key: str) -> list[str]:
    return sorted({item["subject"] for item in datalist[key]})


def test_published_split(release: Path, tmp_path: Path) -> None:
    datalist = prepare_acdc(release, labeled=2)
    validate_datalist(datalist, "acdc.json")
    assert _subjects(datalist, "labeled") == ["patient038", "patient099"]
    assert (
        _subjects(datalist, "unlabeled") == _subjects(datalist, "monitor") == ["patient050", "patient058", "patient100"]
    )
    assert _subjects(datalist, "validation") == ["patient002"]
    assert _subjects(datalist, "test") == ["patient001"]
    assert datalist["source"]["counts"] == {"labeled": 4, "unlabeled": 6, "validation": 2, "test": 2, "monitor": 6}
    assert datalist["source"]["absent"] == {"labeled": 0, "unlabeled": 65, "validation": 9, "test": 19}
    assert datalist["labeled"][0] == {
        "image": "training/patient099/patient099_frame01.nii.gz",
        "subject": "patient099",
        "case": "patient099_frame01",
        "label": "training/patient099/patient099_frame01_gt.nii.gz",
    }
    write_datalist(datalist, tmp_path / "acdc.json")
    assert check_datalist(tmp_path / "acdc.json", release) == []


def test_training_folder_itself(release: Path) -> None:
    item = READERS["acdc"](release / "training", 1)["labeled"][0]
    assert item["image"] == "patient099/patient099_frame01.nii.gz"


def test_drawn_split_is_reproducible_and_without_replacement(release: Path) -> None:
    draws = [_subjects(prepare_acdc(release, labeled=2, seed=seed), "labeled") for seed in range(8)]
    assert draws[3] == _subjects(prepare_acdc(release, labeled=2, seed=3), "labeled")
    assert len({tuple(draw) for draw in draws}) > 1
    assert all(len(draw) == 2 and set(draw) <= set(PATIENTS[:5]) for draw in draws)


def test_all_patients_labeled(release: Path) -> None:
    datalist = prepare_acdc(release, labeled=5, seed=0)
    assert datalist["unlabeled"] == datalist["monitor"] == []
    validate_datalist(datalist, "acdc.json")


def test_absent_labeled_patient_is_named(release: Path) -> None:
    with pytest.raises(DatalistError, match="lacks the labeled subjects patient021"):
        prepare_acdc(release, labeled=6)


@pytest.mark.parametrize("name", ["patient099", "patient002", "patient001"])
def test_missing_annotation_is_named(release: Path, name: str) -> None:
    file = release / "training" / name / f"{name}_frame09_gt.nii.gz"
    file.unlink()
    with pytest.raises(DatalistError) as caught:
        prepare_acdc(release, labeled=1)
    assert caught.value.args[0] == str(file)


def test_unlabeled_patient_needs_no_annotation(release: Path) -> None:
    (release / "training" / "patient050" / "patient050_frame09_gt.nii.gz").unlink()
    datalist = prepare_acdc(release, labeled=1)
    assert len(datalist["unlabeled"]) == len(datalist["monitor"]) + 1
    validate_datalist(datalist, "acdc.json")


def test_other_folders_are_told_the_layout(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(DatalistError, match=r"training/patientNNN/patientNNN_frameMM\.nii\.gz"):
            prepare_acdc(folder, labeled=1)


@pytest.mark.parametrize(("labeled", "seed"), [(0, "published"), (71, "published"), (6, 0), (1, "publised")])
def test_impossible_requests(release: Path, labeled: int, seed: int | str) -> None:
    with pytest.raises(DatalistError):
        prepare_acdc(release, labeled=labeled, seed=seed)


@pytest.mark.skipif(not DATA.is_dir(), reason="the ACDC release is not here")
@pytest.mark.parametrize(
    ("labeled", "subjects", "slices"),
    [(1, {"patient099"}, 32), (3, {"patient099", "patient038", "patient050"}, 68)],
)
def test_real_release(labeled: int, subjects: set[str], slices: int, tmp_path: Path) -> None:
    datalist = prepare_acdc(DATA, labeled=labeled)
    validate_datalist(datalist, "acdc.json")
    assert set(_subjects(datalist, "labeled")) == subjects
    assert len(datalist["labeled"]) == 2 * labeled
    images: list[Any] = [nibabel.load(DATA / item["image"]) for item in datalist["labeled"]]
    assert sum(image.shape[2] for image in images) == slices
    lists = [set(_subjects(datalist, key)) for key in ("labeled", "unlabeled", "validation", "test")]
    assert len(set.union(*lists)) == sum(map(len, lists))
    write_datalist(datalist, tmp_path / "acdc.json")
    assert check_datalist(tmp_path / "acdc.json", DATA, lists=["labeled"]) == []


def test_an_unpacked_release_is_read_as_well(release: Path) -> None:
    packed = prepare_acdc(release, labeled=2)
    for file in [*release.rglob("*_frame*.nii.gz")]:
        nibabel.save(nibabel.load(file), file.with_suffix(""))
        if "patient050" not in file.name:  # of which both lie there
            file.unlink()
    unpacked = prepare_acdc(release, labeled=2)
    assert unpacked["source"] == packed["source"]
    images = [item["image"] for key in ("labeled", "unlabeled", "validation", "test") for item in unpacked[key]]
    assert all((release / image).is_file() for image in images)
    assert {image.endswith(".gz") for image in images if "patient050" in image} == {True}
    assert {image.endswith(".nii") for image in images if "patient050" not in image} == {True}
