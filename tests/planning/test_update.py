# SPDX-License-Identifier: Apache-2.0
"""A bundle takes in what was annotated since, and its validation and plan stay."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from metassl_monai.cli import app

from .writing import an_image, write_scan

SIZE = (24, 22, 5)


def scan(folder: Path, name: str, seed: int, annotated: bool) -> None:
    write_scan(folder / "scans" / f"{name}.nii.gz", an_image(seed, SIZE))
    if annotated:
        annotate(folder, name)


def annotate(folder: Path, name: str, value: int = 1) -> None:
    label = np.zeros(SIZE, np.uint8)
    label[5:15, 6:14, 1:4] = value
    write_scan(folder / "labels" / f"{name}.nii.gz", label)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """Scans a to g, of which the first five are annotated, and their bundle."""
    for number, name in enumerate("abcdefg"):
        scan(tmp_path, name, number, name in "abcde")
    assert prepare(tmp_path).exit_code == 0
    return tmp_path / "bundle"


def prepare(folder: Path, *options: str):
    places = ["--images", str(folder / "scans"), "--labels", str(folder / "labels"), "--out", str(folder / "bundle")]
    return CliRunner().invoke(app, ["prepare", "folder", *places, *options])


def lists(bundle: Path) -> dict[str, set[str]]:
    content = json.loads((bundle / "datalist.json").read_text())
    return {key: {item["case"] for item in content[key]} for key in ("labeled", "unlabeled", "validation")}


def test_what_was_annotated_since_is_labeled_and_new_scans_join(bundle: Path) -> None:
    folder, before = bundle.parent, lists(bundle)
    configs = {file: file.read_bytes() for file in (bundle / "configs").iterdir()}
    plan = (bundle / "plan.json").read_bytes()
    annotate(folder, "f")
    scan(folder, "h", 8, annotated=True)
    scan(folder, "i", 9, annotated=False)
    result = prepare(folder, "--update")
    assert result.exit_code == 0, result.output
    assert "newly labeled: f, h" in result.output
    after = lists(bundle)
    assert after["validation"] == before["validation"]
    assert after["labeled"] == before["labeled"] | {"f", "h"}
    assert after["unlabeled"] == {"g", "i"}
    assert plan == (bundle / "plan.json").read_bytes()
    assert configs == {file: file.read_bytes() for file in (bundle / "configs").iterdir()}


def test_further_images_of_a_held_out_subject_are_no_training_images(tmp_path: Path) -> None:
    for number, name in enumerate("abcde"):
        scan(tmp_path, f"{name}-1", number, name != "e")
    assert prepare(tmp_path, "--subject", "(.)-").exit_code == 0
    (held_out,) = lists(tmp_path / "bundle")["validation"]
    scan(tmp_path, f"{held_out[0]}-2", 9, annotated=False)
    assert prepare(tmp_path, "--subject", "(.)-", "--update").exit_code == 0
    after = lists(tmp_path / "bundle")
    assert after["validation"] == {held_out}
    assert f"{held_out[0]}-2" not in after["unlabeled"]


def new_structure(folder: Path) -> None:
    annotate(folder, "f", 2)


def held_out_label_gone(folder: Path) -> None:
    (name,) = lists(folder / "bundle")["validation"]
    (folder / "labels" / f"{name}.nii.gz").unlink()


def no_bundle(folder: Path) -> None:
    (folder / "bundle" / "plan.json").unlink()


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (new_structure, "its labels are {'0': 'background', '1': 'label 1'}, and those of the folders"),
        (held_out_label_gone, "is in its list 'validation' and no longer there: put it back"),
        (no_bundle, "is no bundle of `metassl prepare folder`"),
    ],
)
def test_what_does_not_fit_is_one_message_and_changes_nothing(bundle: Path, mistake, message: str) -> None:
    mistake(bundle.parent)
    before = (bundle / "datalist.json").read_bytes()
    result = prepare(bundle.parent, "--update")
    assert result.exit_code == 1
    assert message in str(result.exception)
    assert (bundle / "datalist.json").read_bytes() == before


def test_lists_and_plan_cannot_be_given_again(bundle: Path) -> None:
    result = prepare(bundle.parent, "--update", "--validation", "2")
    assert "keeps the lists and the plan" in str(result.exception)
