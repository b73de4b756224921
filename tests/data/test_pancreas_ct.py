# SPDX-License-Identifier: Apache-2.0
"""The Pancreas-CT reader on a tiny folder in the official layout: DICOM series, and labels along other axes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from typer.testing import CliRunner

from metassl_monai.cli import app
from metassl_monai.data import (
    DatalistError,
    SavePredictiond,
    check_datalist,
    labeled_box,
    load_datalist,
    prepare_pancreas_ct,
    read_scan,
    validate_datalist,
    write_datalist,
)
from metassl_monai.data.split import published_split

CASES = [1, 2, 3, 62, 25, 63]  # of fold 0: four training cases, one that was withdrawn, and one for testing
LABELS = "TCIA_pancreas_labels-02-05-2017"


def _name(number: int) -> str:
    return f"PANCREAS_{number:04d}"


@pytest.fixture(scope="session")
def pancreas(write_pancreas_ct: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release whose labels are stored upside down and mirrored; read only."""
    return write_pancreas_ct(tmp_path_factory.mktemp("pancreas") / "data", CASES, (14, 12, 8), "RAS")


@pytest.fixture
def release(pancreas: Path, tmp_path: Path) -> Path:
    """A release to damage."""
    shutil.copytree(pancreas, tmp_path / "pancreas")
    return tmp_path / "pancreas"


def _subjects(datalist: dict[str, Any], key: str) -> list[str]:
    return [item["subject"] for item in datalist[key]]


def test_every_case_is_tested_on_in_one_fold() -> None:
    published = published_split("pancreas_ct")
    assert published["all"] == [_name(number) for number in range(1, 83)]
    folds = [published[f"fold {fold}"] for fold in (0, 1, 2, 3)]
    assert [len(fold) for fold in folds] == [20, 20, 21, 21]
    assert sorted(case for fold in folds for case in fold) == published["all"]


def test_published_fold(pancreas: Path, tmp_path: Path) -> None:
    datalist = prepare_pancreas_ct(pancreas, labeled=2, validation=1)
    assert _subjects(datalist, "labeled") == [_name(1), _name(2)]
    assert _subjects(datalist, "unlabeled") == _subjects(datalist, "monitor") == [_name(3)]
    assert _subjects(datalist, "validation") == [_name(62)]
    assert _subjects(datalist, "test") == [_name(63)]
    # 62 training and 20 test cases, each less one that was withdrawn
    assert datalist["source"]["absent"] == {"labeled": 0, "unlabeled": 57, "validation": 0, "test": 18}
    assert datalist["labeled"][0] == {
        "image": "Pancreas-CT/PANCREAS_0001/1.3.6.1/1.3.6.1.1",
        "label": f"{LABELS}/label0001.nii.gz",
        "subject": _name(1),
        "case": _name(1),
    }
    write_datalist(datalist, tmp_path / "pancreas.json")
    assert check_datalist(tmp_path / "pancreas.json", pancreas) == []


@pytest.mark.parametrize(("fold", "tested"), [(1, [1, 2, 3]), (2, []), (3, [62])])
def test_other_folds_test_other_cases(pancreas: Path, fold: int, tested: list[int]) -> None:
    datalist = prepare_pancreas_ct(pancreas, labeled=1, fold=fold, seed=0)
    assert _subjects(datalist, "test") == [_name(number) for number in tested]
    assert not set(_subjects(datalist, "test")) & {*_subjects(datalist, "labeled"), *_subjects(datalist, "unlabeled")}


@pytest.mark.parametrize("fold", [-1, 4])
def test_there_are_four_folds(pancreas: Path, fold: int) -> None:
    with pytest.raises(DatalistError, match=f"there is no fold {fold}; choose one from 0 to 3"):
        prepare_pancreas_ct(pancreas, labeled=1, fold=fold)


@pytest.mark.parametrize("axes", ["LAI", "LAS", "RAS", "LPS"])
def test_image_and_label_are_matched_in_space(
    write_pancreas_ct: Callable[..., Path], tmp_path: Path, axes: str
) -> None:
    release = write_pancreas_ct(tmp_path, [1], (14, 12, 8), axes)
    [item] = prepare_pancreas_ct(release, labeled=1)["labeled"]
    assert "".join(nibabel.aff2axcodes(nibabel.load(release / item["label"]).affine)) == axes
    image, label = (read_scan(release / item[key], "RAS") for key in ("image", "label"))
    np.testing.assert_allclose(image.affine, label.affine, atol=1e-4)
    inside = label.numpy() > 0
    # bright where the organ was drawn, and nowhere else
    assert image.numpy()[inside].mean() > 100
    assert image.numpy()[~inside].mean() < 40


def test_without_an_orientation_the_flip_is_a_problem(pancreas: Path, tmp_path: Path) -> None:
    datalist = prepare_pancreas_ct(pancreas, labeled=1)
    del datalist["orientation"]
    write_datalist(datalist, tmp_path / "pancreas.json")
    causes = [problem.cause for problem in check_datalist(tmp_path / "pancreas.json", pancreas, lists=["labeled"])]
    assert len(causes) == 1
    assert "voxels beside its image" in causes[0]


@pytest.mark.parametrize("orientation", ["RA", "RLS", "XYZ", 3])
def test_malformed_orientation_is_refused(pancreas: Path, orientation: Any) -> None:
    datalist = {**prepare_pancreas_ct(pancreas, labeled=1), "orientation": orientation}
    with pytest.raises(DatalistError, match="`orientation` is"):
        validate_datalist(datalist, "pancreas.json")


def test_label_at_another_place_is_a_problem(release: Path, tmp_path: Path) -> None:
    file = release / LABELS / "label0001.nii.gz"
    image: Any = nibabel.load(file)
    shift = np.eye(4)
    shift[2, 3] = 5
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), shift @ image.affine), file)
    (problem,) = _check(release, tmp_path)
    assert problem.file == str(file)
    assert "lies up to 5 voxels beside its image" in problem.cause


@pytest.mark.parametrize(
    ("damage", "cause"),
    [
        (lambda series: shutil.rmtree(series), "the file is missing"),
        (lambda series: [file.unlink() for file in series.iterdir()], "holds no DICOM file"),
        (lambda series: (series / "1-004.dcm").unlink(), "1-003.dcm and 1-005.dcm are "),
        (lambda series: (series / "1-004.dcm").write_bytes(b"words"), "1-004.dcm is damaged or not a DICOM image"),
    ],
)
def test_damaged_series_is_one_problem(
    release: Path, tmp_path: Path, damage: Callable[[Path], None], cause: str
) -> None:
    write_datalist(prepare_pancreas_ct(release, labeled=2), tmp_path / "pancreas.json")
    series = release / "Pancreas-CT" / _name(1) / "1.3.6.1" / "1.3.6.1.1"
    damage(series)
    result = _metassl("check", "--datalist", tmp_path / "pancreas.json", "--dataset_dir", release)
    assert result.exit_code == 1
    assert f"{series}: {cause}" in result.output
    assert result.output.count("remedy: ") == 1


def _check(release: Path, tmp_path: Path) -> list[Any]:
    write_datalist(prepare_pancreas_ct(release, labeled=2), tmp_path / "pancreas.json")
    return check_datalist(tmp_path / "pancreas.json", release)


def test_box_of_the_labels_is_in_the_datalists_orientation(
    pancreas: Path, write_pancreas_ct: Callable[..., Path], tmp_path: Path
) -> None:
    boxes = []
    for folder in (pancreas, write_pancreas_ct(tmp_path / "other", CASES, (14, 12, 8), "LPI")):
        write_datalist(prepare_pancreas_ct(folder, labeled=2), tmp_path / "pancreas.json")
        boxes.append(labeled_box(tmp_path / "pancreas.json", folder, margin=(0.0, 0.0, 0.0)))
    np.testing.assert_allclose(*boxes)


def test_predictions_in_the_geometry_of_the_series_are_scored(pancreas: Path, tmp_path: Path) -> None:
    write_datalist(prepare_pancreas_ct(pancreas, labeled=1), tmp_path / "pancreas.json")
    [item] = load_datalist(tmp_path / "pancreas.json", "test", pancreas)
    # the labels of this release are along RAS, and their series along LAI
    prediction = read_scan(item["label"], "LAI")
    prediction.meta["filename_or_obj"] = item["image"]
    SavePredictiond("pred", tmp_path / "out", pancreas)({"pred": prediction[None]})
    where = ["--datalist", tmp_path / "pancreas.json", "--dataset_dir", pancreas, "--predictions", tmp_path / "out"]
    result = _metassl("evaluate", *where, "--split", "test", "--out", tmp_path / "scores")
    assert result.exit_code == 0, result.output
    summary = json.loads((tmp_path / "scores" / "metrics.json").read_text())["summary"]
    assert {row["structure"]: row["mean"] for row in summary if row["metric"] == "dice"}["pancreas"] == 1.0


def test_second_series_and_second_label_are_refused(release: Path) -> None:
    study = release / "Pancreas-CT" / _name(1) / "1.3.6.1"
    shutil.copytree(study / "1.3.6.1.1", study / "1.3.6.1.2")
    with pytest.raises(DatalistError, match="is PANCREAS_0001 too"):
        prepare_pancreas_ct(release, labeled=1)
    shutil.rmtree(study / "1.3.6.1.2")
    shutil.copy(release / LABELS / "label0001.nii.gz", release)
    with pytest.raises(DatalistError, match=r"is label0001\.nii\.gz too"):
        prepare_pancreas_ct(release, labeled=1)


def test_missing_label_is_named(release: Path) -> None:
    (release / LABELS / "label0002.nii.gz").unlink()
    with pytest.raises(DatalistError, match=r"label0002\.nii\.gz: the annotation of PANCREAS_0002 is missing"):
        prepare_pancreas_ct(release, labeled=2)
    assert _subjects(prepare_pancreas_ct(release, labeled=1), "monitor") == [_name(3), _name(62)]


def test_other_folders_are_told_the_layout(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(DatalistError, match=r"PANCREAS_NNNN/STUDY/SERIES"):
            prepare_pancreas_ct(folder, labeled=1)


def _metassl(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_command_takes_a_fold(pancreas: Path, tmp_path: Path) -> None:
    out = tmp_path / "pancreas.json"
    result = _metassl("prepare", "pancreas_ct", "--source", pancreas, "--labeled", 1, "--fold", 3, "--out", out)
    assert result.exit_code == 0, result.output
    assert json.loads(out.read_text())["source"]["fold"] == 3
    assert "no problem found" in _metassl("check", "--datalist", out, "--dataset_dir", pancreas).output
