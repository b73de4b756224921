# SPDX-License-Identifier: Apache-2.0
"""A place that cannot be written to is told before any work is done for it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from metassl_monai.bundle import UserError
from metassl_monai.bundle.writable import check_no_training, check_writable, check_writable_file
from metassl_monai.cli import app


def tree(folder):
    return sorted(folder.rglob("*"))


def test_a_place_that_can_be_written_to_is_left_as_it_was(tmp_path, monkeypatch):
    (tmp_path / "there").mkdir()
    before = tree(tmp_path)
    check_writable(tmp_path, tmp_path / "there", tmp_path / "a" / "new" / "one")
    check_writable_file(tmp_path / "there" / "x.json")
    check_writable_file(tmp_path / "new" / "x.json")
    monkeypatch.chdir(tmp_path)
    check_writable("", ".", "relative/new")
    check_writable_file("x.json")
    assert tree(tmp_path) == before


def obstacles(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    yield tmp_path / "file", "Not a directory"
    yield tmp_path / "file" / "below" / "it", "Not a directory"
    yield tmp_path / "dangling" / "below", "No such file"
    yield tmp_path / ("x" * 300), "too long"
    yield Path("/dev/null/x"), "Not a directory"
    yield Path("/proc/x"), ""


def test_a_place_that_cannot_be_written_to_is_named_with_the_reason(tmp_path):
    for place, reason in obstacles(tmp_path):
        before = tree(tmp_path)
        for call, path in ((check_writable, place), (check_writable_file, place / "x.json")):
            with pytest.raises(UserError) as error:
                call(path)
            assert f"{path}: cannot be written: " in str(error.value)
            assert reason in str(error.value)
            assert len(str(error.value).splitlines()) == 2
        assert tree(tmp_path) == before


def test_a_full_disk_is_told(tmp_path, monkeypatch):
    def full(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match="No space left on device"):
        check_writable(tmp_path / "out")
    assert tree(tmp_path) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions bind no administrator")
def test_a_folder_without_permission_is_told(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="Permission denied"):
        check_writable(tmp_path / "out")


def test_a_file_cannot_replace_a_folder(tmp_path):
    with pytest.raises(UserError, match="it is a folder"):
        check_writable_file(tmp_path)


EXPERIMENT = "bundles/acdc_cardiac_mri_segmentation/experiments"


@pytest.fixture
def predicted(phantom, tmp_path):
    """The arguments of an evaluation that would succeed: the annotations as predictions."""
    predictions = tmp_path / "predictions" / "images"
    predictions.mkdir(parents=True)
    for item in json.loads(phantom.read_text())["validation"]:
        (predictions / f"{item['case']}_seg.nii.gz").write_bytes((phantom.parent / item["label"]).read_bytes())
    data = ["--datalist", str(phantom), "--dataset_dir", str(phantom.parent)]
    return ["evaluate", *data, "--predictions", str(predictions.parent)]


@pytest.fixture
def commands(predicted, tmp_path):
    """Each command that writes, without its ``--out``, and what it must not have begun."""
    (tmp_path / "ACDC" / "patient001").mkdir(parents=True)
    file = sorted(Path(__file__).parents[2].glob(f"{EXPERIMENT}/*.json"))[0]
    return {
        "evaluate": predicted,
        "prepare": ["prepare", "acdc", "--source", str(tmp_path / "ACDC"), "--labeled", "1"],
        "demo": ["demo"],
        "bundle": ["bundle", "phantom_segmentation"],
        "experiment": ["experiment", str(file), "--dataset-dir", str(tmp_path)],
    }


@pytest.mark.parametrize("name", ["evaluate", "prepare", "demo", "bundle", "experiment"])
@pytest.mark.parametrize("place", ["file/out", "/dev/null/out"])
def test_each_command_tells_it_before_its_work(name, place, commands, tmp_path):
    (tmp_path / "file").write_text("x")
    before = tree(tmp_path)
    out = tmp_path / place  # an absolute place stays as it is
    result = CliRunner().invoke(app, [*commands[name], "--out", str(out)])
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert f"{out}" in result.output
    assert "cannot be written: Not a directory" in result.output
    assert "checking" not in result.output
    assert tree(tmp_path) == before


def test_a_training_is_not_destroyed_by_the_next_one(tmp_path):
    check_no_training(tmp_path / "new")
    checkpoint = tmp_path / "checkpoint.pt"
    checkpoint.touch()
    with pytest.raises(UserError, match="earlier training") as error:
        check_no_training(tmp_path)
    for remedy in ("--resume True", "--output_dir", "--overwrite True"):
        assert remedy in str(error.value)
    check_no_training(tmp_path, resume=True)
    check_no_training(tmp_path, overwrite=True)
    with pytest.raises(UserError, match="give one of them"):
        check_no_training(tmp_path, resume=True, overwrite=True)
