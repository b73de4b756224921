# SPDX-License-Identifier: Apache-2.0
"""The AbdomenCT-1K reader on a tiny folder in the official layout."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from metassl_monai.cli import app
from metassl_monai.data import DatalistError, check_datalist, prepare_abdomenct1k, write_datalist

LISTS = ("labeled", "unlabeled", "validation", "test")
SMALL = {"train": 5, "validation": 1, "test": 2}


@pytest.fixture(scope="session")
def abdomen(write_abdomenct1k: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release of ten cases, the last without a mask; read only."""
    folder = write_abdomenct1k(tmp_path_factory.mktemp("abdomen") / "data", range(1, 11), (12, 10, 3))
    (folder / "Mask" / "Case_00010.nii.gz").unlink()
    return folder


@pytest.fixture
def release(abdomen: Path, tmp_path: Path) -> Path:
    """A release to damage."""
    shutil.copytree(abdomen, tmp_path / "abdomen")
    return tmp_path / "abdomen"


def _subjects(datalist: dict[str, Any], key: str) -> list[str]:
    return [item["subject"] for item in datalist[key]]


def test_drawn_lists(abdomen: Path, tmp_path: Path) -> None:
    datalist = prepare_abdomenct1k(abdomen, 2, seed=0, **SMALL)
    counts = {"labeled": 2, "unlabeled": 3, "validation": 1, "test": 2, "monitor": 3}
    assert datalist["source"]["counts"] == counts
    assert datalist["source"]["seed"] == 0
    assert datalist["source"]["without_mask"] == 1
    subjects = [subject for key in LISTS for subject in _subjects(datalist, key)]
    assert len(set(subjects)) == 8
    assert "Case_00010" not in subjects
    number = int(_subjects(datalist, "labeled")[0][-5:])
    assert datalist["labeled"][0] == {
        "image": f"AbdomenCT-1K-ImagePart{1 + number % 2}/Case_{number:05d}_0000.nii.gz",
        "label": f"Mask/Case_{number:05d}.nii.gz",
        "subject": f"Case_{number:05d}",
        "case": f"Case_{number:05d}",
    }
    write_datalist(datalist, tmp_path / "abdomen.json")
    assert check_datalist(tmp_path / "abdomen.json", abdomen) == []


def test_one_seed_is_one_split_of_which_more_labels_are_a_superset(abdomen: Path) -> None:
    few, many = (prepare_abdomenct1k(abdomen, labeled, seed=4, **SMALL) for labeled in (1, 3))
    assert _subjects(few, "test") == _subjects(many, "test")
    assert _subjects(many, "labeled")[:1] == _subjects(few, "labeled")
    assert len({tuple(_subjects(prepare_abdomenct1k(abdomen, 1, seed, **SMALL), "test")) for seed in range(6)}) > 1


def test_defaults_are_the_counts_of_alhvr(write_abdomenct1k: Callable[..., Path], tmp_path: Path) -> None:
    counts = prepare_abdomenct1k(write_abdomenct1k(tmp_path, range(41), (2, 2, 2)), 3, seed=0)["source"]["counts"]
    assert counts == {"labeled": 3, "unlabeled": 27, "validation": 0, "test": 11, "monitor": 27}


@pytest.mark.parametrize(("labeled", "options"), [(0, {}), (6, {}), (1, {"train": 7}), (1, {"test": -1})])
def test_impossible_requests(abdomen: Path, labeled: int, options: dict[str, int]) -> None:
    with pytest.raises(DatalistError, match="cannot"):
        prepare_abdomenct1k(abdomen, labeled, seed=0, **{**SMALL, **options})


def test_file_in_two_folders_is_refused(release: Path) -> None:
    shutil.copy(release / "Mask" / "Case_00003.nii.gz", release)
    with pytest.raises(DatalistError, match=r"another folder holds Case_00003\.nii\.gz too"):
        prepare_abdomenct1k(release, 1, seed=0, **SMALL)


def test_other_folders_are_told_the_layout(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(DatalistError, match=r"Case_NNNNN_0000\.nii\.gz"):
            prepare_abdomenct1k(folder, 1, seed=0)


def _metassl(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def _prepare(release: Path, out: Path, *seed: object) -> Any:
    counts = [text for key, count in SMALL.items() for text in (f"--{key}", count)]
    return _metassl("prepare", "abdomenct1k", "--source", release, "--labeled", 5, "--out", out, *counts, *seed)


def test_command_needs_a_seed_because_no_split_was_published(release: Path, tmp_path: Path) -> None:
    with pytest.raises(DatalistError, match="no split of AbdomenCT-1K was published; draw one: give a number as seed"):
        prepare_abdomenct1k(release, 1, seed="published")
    result = _prepare(release, tmp_path / "x.json")
    assert result.exit_code == 1
    assert not (tmp_path / "x.json").exists()


@pytest.mark.parametrize(
    ("damage", "cause"),
    [
        (lambda file: file.unlink(), "the file is missing"),
        (lambda file: file.write_bytes(file.read_bytes()[:60]), "cannot be read to its end"),
    ],
)
def test_damage_is_one_problem_with_file_and_remedy(
    release: Path, tmp_path: Path, damage: Callable[[Path], None], cause: str
) -> None:
    out = tmp_path / "abdomen.json"
    result = _prepare(release, out, "--seed", 0)
    assert result.exit_code == 0, result.output
    assert "no problem found" in _metassl("check", "--datalist", out, "--dataset_dir", release).output
    file = release / json.loads(out.read_text())["labeled"][0]["image"]
    damage(file)
    result = _metassl("check", "--datalist", out, "--dataset_dir", release)
    assert result.exit_code == 1
    assert f"{file}: {cause}" in result.output
    assert result.output.count("remedy: ") == 1
