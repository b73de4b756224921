# SPDX-License-Identifier: Apache-2.0
"""The LA reader, the check of NRRD files and the scores on a tiny folder in the official layout and on real cases."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from monai.transforms import Compose, LoadImaged, MapLabelValued, SaveImage
from typer.testing import CliRunner

from metassl_monai.cli import app
from metassl_monai.data import READERS, DatalistError, check_datalist, prepare_la, validate_datalist, write_datalist

SPLIT = json.loads((files("metassl_monai.data") / "splits" / "la.json").read_text())
TRAIN, TEST = SPLIT["train"], SPLIT["test"]
# The first five of the published training list, two from its middle, one for testing, and a case of another data set.
CASES = [*TRAIN[:5], *TRAIN[40:42], TEST[0], "ANOTHERCASE"]


@pytest.fixture(scope="session")
def la(write_la: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release; read only."""
    return write_la(tmp_path_factory.mktemp("la") / "Training Set", CASES, (24, 20, 12))


@pytest.fixture
def release(la: Path, tmp_path: Path) -> Path:
    """A release to damage."""
    shutil.copytree(la, tmp_path / "la")
    return tmp_path / "la"


def _subjects(datalist: dict[str, Any], key: str) -> list[str]:
    return [item["subject"] for item in datalist[key]]


def _metassl(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_published_lists_are_disjoint() -> None:
    assert len(set(TRAIN)) == 80
    assert len(set(TEST)) == 20
    assert not set(TRAIN) & set(TEST)
    assert TRAIN[:2] == ["06SR5RBREL16DQ6M8LWS", "0RZDK210BSMWAA6467LU"]


def test_published_split(la: Path, tmp_path: Path) -> None:
    datalist = prepare_la(la, labeled=2, validation=2)
    validate_datalist(datalist, "la.json")
    assert _subjects(datalist, "labeled") == TRAIN[:2]
    assert _subjects(datalist, "unlabeled") == _subjects(datalist, "monitor") == TRAIN[2:5]
    assert _subjects(datalist, "validation") == TRAIN[40:42]
    assert _subjects(datalist, "test") == TEST[:1]
    assert datalist["source"] == {
        "reader": "la",
        "seed": "published",
        "counts": {"labeled": 2, "unlabeled": 3, "validation": 2, "test": 1, "monitor": 3},
        "absent": {"labeled": 0, "unlabeled": 73, "validation": 0, "test": 19},
    }
    assert datalist["labeled"][0] == {
        "image": f"{TRAIN[0]}/lgemri.nrrd",
        "label": f"{TRAIN[0]}/laendo.nrrd",
        "subject": TRAIN[0],
        "case": TRAIN[0],
    }
    write_datalist(datalist, tmp_path / "la.json")
    assert check_datalist(tmp_path / "la.json", la) == []


FOLDS = json.loads((files("metassl_monai.data") / "splits" / "la_folds.json").read_text())["folds"]


def test_folds_test_each_case_once_and_start_with_the_published_split() -> None:
    assert len(FOLDS) == 5
    assert all(len(fold["train"]) == 80 and len(fold["test"]) == 20 for fold in FOLDS)
    assert all(sorted(fold["train"] + fold["test"]) == sorted(TRAIN + TEST) for fold in FOLDS)
    assert sorted(case for fold in FOLDS for case in fold["test"]) == sorted(TRAIN + TEST)
    assert FOLDS[0]["train"] == TRAIN


@pytest.fixture(scope="module")
def third(write_la: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release that fits the third fold; read only."""
    cases = [*FOLDS[2]["train"][:4], *FOLDS[2]["test"][:2]]
    return write_la(tmp_path_factory.mktemp("fold") / "la", cases, (24, 20, 12))


def test_fold_has_its_own_lists(third: Path) -> None:
    datalist = prepare_la(third, labeled=2, validation=1, fold=2)
    validate_datalist(datalist, "la.json")
    assert _subjects(datalist, "labeled") == FOLDS[2]["train"][:2]
    assert _subjects(datalist, "unlabeled") == FOLDS[2]["train"][2:3]
    assert _subjects(datalist, "validation") == FOLDS[2]["train"][3:4]
    assert _subjects(datalist, "test") == FOLDS[2]["test"][:2]
    assert datalist["source"]["fold"] == 2
    assert datalist["source"]["absent"] == {"labeled": 0, "unlabeled": 76, "validation": 0, "test": 18}


def test_first_fold_is_the_published_split(la: Path) -> None:
    published, first = prepare_la(la, labeled=2), prepare_la(la, labeled=2, fold=0)
    assert first["source"].pop("fold") == 0
    assert first == published


@pytest.mark.parametrize("fold", [-1, 5])
def test_other_folds_are_refused(la: Path, fold: int) -> None:
    with pytest.raises(DatalistError, match=f"there is no fold {fold}; choose one from 0 to 4"):
        prepare_la(la, labeled=1, fold=fold)


def test_command_takes_a_fold_and_refuses_it_where_there_are_none(third: Path, tmp_path: Path) -> None:
    out = tmp_path / "la.json"
    result = _metassl("prepare", "la", "--source", third, "--labeled", 2, "--fold", 2, "--out", out)
    assert result.exit_code == 0, result.output
    assert json.loads(out.read_text()) == prepare_la(third, labeled=2, fold=2)
    refused = _metassl("prepare", "acdc", "--source", third, "--labeled", 2, "--fold", 2, "--out", tmp_path / "a.json")
    assert refused.exit_code == 1
    assert "acdc has no use for it" in refused.output


def test_no_case_is_held_out_unless_asked_for(la: Path) -> None:
    assert READERS["la"](la, 2)["validation"] == []


def test_folder_above_the_cases(la: Path) -> None:
    item = prepare_la(la.parent, labeled=1)["labeled"][0]
    assert item["image"] == f"Training Set/{TRAIN[0]}/lgemri.nrrd"


def test_drawn_split_is_reproducible_and_leaves_the_validation_cases(la: Path) -> None:
    draws = [_subjects(prepare_la(la, 3, seed=seed, validation=2), "labeled") for seed in range(8)]
    assert draws[3] == _subjects(prepare_la(la, 3, seed=3, validation=2), "labeled")
    assert len(set(map(tuple, draws))) > 1
    assert all(len(set(draw)) == 3 and set(draw) <= set(TRAIN[:5]) for draw in draws)


@pytest.mark.parametrize(("labeled", "validation"), [(1, -1), (2, 6), (1, 7), (1, 80)])
def test_too_many_held_out_cases_are_refused(la: Path, labeled: int, validation: int) -> None:
    with pytest.raises(DatalistError, match=f"cannot hold out {validation} of 7 training cases"):
        prepare_la(la, labeled, validation=validation)


def test_absent_labeled_case_is_named(la: Path) -> None:
    with pytest.raises(DatalistError, match=f"lacks the labeled subjects {TRAIN[5]}"):
        prepare_la(la, labeled=6)


def test_case_in_two_folders_is_refused(release: Path) -> None:
    shutil.copytree(release / TRAIN[0], release / "copies" / TRAIN[0])
    with pytest.raises(DatalistError, match=f"another folder holds case {TRAIN[0]} too"):
        prepare_la(release, labeled=1)


@pytest.mark.parametrize("case", [TRAIN[0], TRAIN[41], TEST[0]])
def test_missing_annotation_is_named(release: Path, case: str) -> None:
    (release / case / "laendo.nrrd").unlink()
    with pytest.raises(DatalistError) as caught:
        prepare_la(release, labeled=1, validation=1)
    assert caught.value.args[0] == str(release / case / "laendo.nrrd")


def test_unlabeled_case_needs_no_annotation(release: Path) -> None:
    (release / TRAIN[1] / "laendo.nrrd").unlink()
    datalist = prepare_la(release, labeled=1)
    assert len(datalist["unlabeled"]) == len(datalist["monitor"]) + 1
    assert not any("label" in item for item in datalist["unlabeled"])


def test_other_folders_are_told_the_layout(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(DatalistError, match=r"CASE/lgemri\.nrrd"):
            prepare_la(folder, labeled=1)


def _damaged(array: np.ndarray, value: float, dtype: str) -> np.ndarray:
    array = array.astype(dtype)
    array[3, 2, 1] = value
    return array


@pytest.mark.parametrize(
    ("file", "value", "dtype", "cause"),
    [
        ("laendo.nrrd", 7, "u1", "label values 7 are not in `label_values` (0, 255)"),
        ("laendo.nrrd", 1, "u1", "label values 1 are not in `label_values` (0, 255)"),
        ("laendo.nrrd", 0.5, "f4", "not integers"),
        ("lgemri.nrrd", np.nan, "f4", "1 voxels are NaN or infinite"),
    ],
)
def test_bad_voxel_is_one_problem(
    release: Path, write_nrrd: Any, file: str, value: float, dtype: str, cause: str
) -> None:
    whole = LoadImaged("x", image_only=True)({"x": str(release / TRAIN[0] / file)})["x"].numpy()
    write_nrrd(release / TRAIN[0] / file, _damaged(whole, value, dtype))
    (problem,) = _check(release)
    assert problem.file == str(release / TRAIN[0] / file)
    assert cause in problem.cause


@pytest.mark.parametrize("kept", [0.7, None])
def test_broken_file_is_one_problem_with_the_reason(release: Path, kept: float | None) -> None:
    file = release / TRAIN[1] / "lgemri.nrrd"
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * kept)] if kept else b"words")
    (problem,) = _check(release)
    assert problem.file == str(file)
    assert "cannot be read to its end" in problem.cause
    assert ("bytes" in problem.cause) == bool(kept)


def test_film_and_empty_annotation_are_problems(release: Path, write_nrrd: Any) -> None:
    write_nrrd(release / TRAIN[0] / "lgemri.nrrd", np.zeros((8, 8, 4, 3), np.uint8))
    whole = LoadImaged("x", image_only=True)({"x": str(release / TRAIN[1] / "laendo.nrrd")})["x"].numpy()
    write_nrrd(release / TRAIN[1] / "laendo.nrrd", np.zeros_like(whole))
    causes = [problem.cause for problem in _check(release)]
    assert causes == ["is 4D (8 x 8 x 4 x 3), not 2D or 3D", "the label of a labeled case is all background"]


def _check(release: Path) -> list[Any]:
    write_datalist(prepare_la(release, labeled=2), release / "datalist.json")
    return check_datalist(release / "datalist.json", release)


def test_raw_values_are_mapped_before_scoring(la: Path, tmp_path: Path) -> None:
    datalist = prepare_la(la, labeled=2, validation=2)
    write_datalist(datalist, tmp_path / "la.json")
    classes = Compose([LoadImaged("label", image_only=True), MapLabelValued("label", [0, 255], [0, 1])])
    save = SaveImage(tmp_path / "predictions", "seg", data_root_dir=la, separate_folder=False, channel_dim=None)
    for item in datalist["validation"]:
        prediction = classes({"label": str(la / item["label"])})["label"]
        prediction.meta["filename_or_obj"] = str(la / item["image"])
        save(prediction)
    arguments = ["--datalist", tmp_path / "la.json", "--dataset_dir", la, "--predictions", tmp_path / "predictions"]
    result = _metassl("evaluate", *arguments, "--out", tmp_path / "scores")
    assert result.exit_code == 0, result.output
    summary = json.loads((tmp_path / "scores" / "metrics.json").read_text())["summary"]
    assert {row["structure"]: row["mean"] for row in summary if row["metric"] == "dice"}["left atrium"] == 1.0


def test_command_prepares_and_prints_counts(la: Path, tmp_path: Path) -> None:
    out = tmp_path / "la.json"
    result = _metassl("prepare", "la", "--source", la, "--labeled", 2, "--validation", 1, "--out", out)
    assert result.exit_code == 0, result.output
    assert "labeled    2 volumes of 2 subjects: 06SR5RBREL16DQ6M8LWS, 0RZDK210BSMWAA6467LU" in result.output
    assert "validation    1 volumes" in result.output
    assert json.loads(out.read_text())["label_values"] == {"0": 0, "255": 1}
    checked = _metassl("check", "--datalist", out, "--dataset_dir", la)
    assert "no problem found" in checked.output


def test_command_refuses_to_hold_out_where_a_validation_list_was_published(tmp_path: Path) -> None:
    arguments = ["--source", tmp_path, "--labeled", 1, "--validation", 2, "--out", tmp_path / "acdc.json"]
    result = _metassl("prepare", "acdc", *arguments)
    assert result.exit_code == 1
    assert "acdc has no use for it" in result.output
    assert not list(tmp_path.iterdir())


@pytest.fixture
def real_la(real_data: Path) -> Path:
    if not (real_data / "la").is_dir():
        pytest.skip("the LA cases are not here")
    return real_data / "la"


def test_real_release(real_la: Path, tmp_path: Path) -> None:
    datalist = prepare_la(real_la, labeled=2, validation=4)
    present = [name for name in TRAIN if (real_la / name).is_dir()]
    assert _subjects(datalist, "labeled") == TRAIN[:2]
    assert _subjects(datalist, "validation") == present[-4:]
    counts = datalist["source"]["counts"]
    assert counts["labeled"] + counts["unlabeled"] + counts["validation"] == len(present)
    assert counts["unlabeled"] == counts["monitor"]
    write_datalist(datalist, tmp_path / "la.json")
    assert check_datalist(tmp_path / "la.json", real_la, lists=["labeled", "validation"]) == []
