# SPDX-License-Identifier: Apache-2.0
"""The BraTS 2019 reader on a tiny folder in the official layout."""

from __future__ import annotations

import gzip
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
from metassl_monai.data import READERS, DatalistError, check_datalist, prepare_brats2019, write_datalist
from metassl_monai.data.split import published_split

SPLIT = published_split("brats2019")
CASES = [*SPLIT["train"][:4], SPLIT["validation"][0], SPLIT["test"][0], "BraTS19_OTHER_1_1"]


@pytest.fixture(scope="session")
def brats(write_brats2019: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release; read only."""
    folder = tmp_path_factory.mktemp("brats") / "MICCAI_BraTS_2019_Data_Training"
    return write_brats2019(folder, CASES, (16, 14, 12))


@pytest.fixture
def release(brats: Path, tmp_path: Path) -> Path:
    """A release to damage."""
    shutil.copytree(brats, tmp_path / "brats")
    return tmp_path / "brats"


def _subjects(datalist: dict[str, Any], key: str) -> list[str]:
    return [item["subject"] for item in datalist[key]]


def test_published_lists_are_disjoint() -> None:
    assert {key: len(cases) for key, cases in SPLIT.items()} == {"train": 250, "validation": 25, "test": 60}
    assert len({case for cases in SPLIT.values() for case in cases}) == 335


def test_published_split(brats: Path, tmp_path: Path) -> None:
    datalist = prepare_brats2019(brats, labeled=2)
    assert _subjects(datalist, "labeled") == CASES[:2]
    assert _subjects(datalist, "unlabeled") == _subjects(datalist, "monitor") == CASES[2:4]
    assert _subjects(datalist, "validation") == CASES[4:5]
    assert _subjects(datalist, "test") == CASES[5:6]
    assert datalist["source"]["absent"] == {"labeled": 0, "unlabeled": 246, "validation": 24, "test": 59}
    assert datalist["label_values"] == {"0": 0, "1": 1, "2": 1, "4": 1}
    assert datalist["labeled"][0] == {
        "image": f"HGG/{CASES[0]}/{CASES[0]}_flair.nii.gz",
        "label": f"HGG/{CASES[0]}/{CASES[0]}_seg.nii.gz",
        "subject": CASES[0],
        "case": CASES[0],
    }
    write_datalist(datalist, tmp_path / "brats.json")
    assert check_datalist(tmp_path / "brats.json", brats) == []


def test_folder_above(brats: Path) -> None:
    item = READERS["brats2019"](brats.parent, 1)["labeled"][0]
    assert item["image"].startswith("MICCAI_BraTS_2019_Data_Training/HGG/")


def test_drawn_split_is_reproducible(brats: Path) -> None:
    draws = [_subjects(prepare_brats2019(brats, 2, seed=seed), "labeled") for seed in range(6)]
    assert draws[3] == _subjects(prepare_brats2019(brats, 2, seed=3), "labeled")
    assert len(set(map(tuple, draws))) > 1
    assert all(set(draw) <= set(CASES[:4]) for draw in draws)


def test_uncompressed_files_are_found(release: Path) -> None:
    for file in (release / "HGG" / CASES[0]).iterdir():
        file.with_suffix("").write_bytes(gzip.decompress(file.read_bytes()))
        file.unlink()
    item = prepare_brats2019(release, labeled=1)["labeled"][0]
    assert item["image"].endswith("_flair.nii")
    assert item["label"].endswith("_seg.nii")


def test_missing_annotation_is_named(release: Path) -> None:
    file = release / "HGG" / CASES[0] / f"{CASES[0]}_seg.nii.gz"
    file.unlink()
    with pytest.raises(DatalistError, match=rf"{CASES[0]}_seg\.nii\.gz: the annotation of {CASES[0]} is missing"):
        prepare_brats2019(release, labeled=1)


def test_case_in_both_grades_is_refused(release: Path) -> None:
    shutil.copytree(release / "HGG" / CASES[0], release / "LGG" / CASES[0])
    with pytest.raises(DatalistError, match=f"another folder holds case {CASES[0]} too"):
        prepare_brats2019(release, labeled=1)


def test_other_folders_are_told_the_layout(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(DatalistError, match=r"HGG/BraTS19_\*"):
            prepare_brats2019(folder, labeled=1)


def _metassl(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_commands_prepare_and_check(release: Path, tmp_path: Path) -> None:
    out = tmp_path / "brats.json"
    result = _metassl("prepare", "brats2019", "--source", release, "--labeled", 1, "--out", out)
    assert result.exit_code == 0, result.output
    assert f"labeled    1 volumes of 1 subjects: {CASES[0]}" in result.output
    assert json.loads(out.read_text())["labels"] == {"0": "background", "1": "whole tumor"}
    assert "no problem found" in _metassl("check", "--datalist", out, "--dataset_dir", release).output


@pytest.mark.parametrize(
    ("name", "damage", "cause"),
    [
        ("flair", lambda file: file.unlink(), "the file is missing"),
        ("flair", lambda file: file.write_bytes(file.read_bytes()[:400]), "cannot be read to its end"),
        ("seg", lambda file: _fill(file, 3), "label values 3 are not in `label_values` (0, 1, 2, 4)"),
        ("seg", lambda file: _fill(file, 0), "the label of a labeled case is all background"),
    ],
)
def test_damage_is_one_problem_with_file_and_remedy(
    release: Path, tmp_path: Path, name: str, damage: Callable[[Path], None], cause: str
) -> None:
    write_datalist(prepare_brats2019(release, labeled=1), tmp_path / "brats.json")
    file = release / "HGG" / CASES[0] / f"{CASES[0]}_{name}.nii.gz"
    damage(file)
    result = _metassl("check", "--datalist", tmp_path / "brats.json", "--dataset_dir", release)
    assert result.exit_code == 1
    assert f"{file}: {cause}" in result.output
    assert result.output.count("remedy: ") == 1


def _fill(file: Path, value: int) -> None:
    image: Any = nibabel.load(file)
    nibabel.save(nibabel.Nifti1Image(np.full(image.shape, value, np.uint8), image.affine), file)


def test_command_takes_no_fold(tmp_path: Path) -> None:
    result = _metassl(
        "prepare", "brats2019", "--source", tmp_path, "--labeled", 1, "--fold", 2, "--out", tmp_path / "x"
    )
    assert result.exit_code == 1
    assert "--fold 2: brats2019 has no use for it" in result.output
