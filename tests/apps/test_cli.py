# SPDX-License-Identifier: Apache-2.0
"""The metassl command as users type it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from metassl_monai import __version__
from metassl_monai.bundle import locate
from metassl_monai.cli import app


def metassl(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def commands(monkeypatch):
    """Collect the command lines instead of running them."""
    run = []
    monkeypatch.setattr(locate, "run_command", run.append)
    return run


def test_train_runs_the_bundle_with_its_overlays_in_order_and_passes_ids_on(commands):
    arguments = ["--method", "mean_teacher", "--plain", "--overlay", "acdc_small", "--iterations", "5"]
    assert metassl("train", "acdc_cardiac_mri_segmentation", *arguments).exit_code == 0
    (command,) = commands
    assert command[:5] == ["python", "-m", "monai.bundle", "run", "training"]
    files = command[command.index("--config_file") + 1]
    order = [files.index(f"{name}.json") for name in ("train", "mean_teacher", "plain", "acdc_small")]
    assert order == sorted(order)
    assert command[-2:] == ["--iterations", "5"]


def test_version_is_that_of_the_package():
    assert metassl("--version").output == f"metassl {__version__}\n"


def test_infer_runs_the_bundle(commands):
    device = ["--device", "$torch.device('cpu')"]  # an id of the bundle, and an option where images are given
    assert metassl("infer", "phantom_segmentation", "--ckpt_path", "model.pt", *device).exit_code == 0
    (command,) = commands
    assert command[4] == "inference"
    assert command[-4:] == ["--ckpt_path", "model.pt", *device]


def test_bundle_lists_and_copies(tmp_path):
    assert metassl("bundle").output.split() == locate.bundle_names()
    assert metassl("bundle", "phantom_segmentation", "--out", tmp_path).exit_code == 0
    assert (tmp_path / "phantom_segmentation" / "configs" / "train.json").is_file()


def test_check_is_silent_about_sound_data_and_loud_about_damage(phantom, tmp_path):
    sound = metassl("check", "--datalist", phantom, "--dataset_dir", phantom.parent)
    assert sound.exit_code == 0
    assert "no problem found" in sound.output
    assert json.loads(metassl("check", "--datalist", phantom, "--dataset_dir", phantom.parent, "--json").stdout) == []
    wrong = metassl("check", "--datalist", phantom, "--dataset_dir", tmp_path)
    assert wrong.exit_code == 1
    assert wrong.output.count("remedy:") == 1  # another folder, not so many files that are missing
    first = json.loads(phantom.read_text())["labeled"][0]["image"]
    (tmp_path / first).parent.mkdir(parents=True)
    shutil.copy(phantom.parent / first, tmp_path / first)
    absent = metassl("check", "--datalist", phantom, "--dataset_dir", tmp_path)
    assert absent.exit_code == 1
    assert absent.output.count("remedy:") >= 7
    printed = metassl("check", "--datalist", phantom, "--dataset_dir", tmp_path, "--json").stdout
    told, _ = json.JSONDecoder().raw_decode(printed)  # the runner appends what ends the program on standard error
    assert len(told) >= 7
    assert set(told[0]) == {"file", "cause", "remedy"}


def test_prepare_prints_what_it_wrote(real_data, tmp_path):
    out = tmp_path / "acdc.json"
    result = metassl("prepare", "acdc", "--source", real_data / "acdc", "--labeled", 1, "--out", out)
    assert result.exit_code == 0, result.output
    assert "patient099" in result.output
    assert len(json.loads(out.read_text())["labeled"]) == 2


def test_evaluate_prints_a_table_and_writes_the_cases(phantom, tmp_path):
    # the annotations as predictions: a perfect score
    predictions = tmp_path / "predictions" / "images"
    predictions.mkdir(parents=True)
    for item in json.loads(phantom.read_text())["validation"]:
        name = f"{item['case']}_seg.nii.gz"
        (predictions / name).write_bytes((phantom.parent / item["label"]).read_bytes())
    arguments = ["--datalist", phantom, "--dataset_dir", phantom.parent, "--out", tmp_path / "scores"]
    result = metassl("evaluate", *arguments, "--predictions", tmp_path / "predictions")
    assert result.exit_code == 0, result.output
    assert "left ventricle" in result.output
    summary = json.loads((tmp_path / "scores" / "metrics.json").read_text())["summary"]
    assert {row["mean"] for row in summary if row["metric"] == "dice"} == {1.0}
    printed = metassl("evaluate", *arguments, "--predictions", tmp_path / "predictions", "--json").stdout
    assert json.loads(printed) == summary
    missing = metassl("evaluate", *arguments, "--predictions", tmp_path)
    assert missing.exit_code == 1


@pytest.mark.parametrize("which", ["labels/{}.nii.gz", "predictions/images/{}_seg.nii.gz"])
def test_evaluate_names_a_damaged_file(which, phantom, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(phantom.parent, data)
    items = json.loads(phantom.read_text())["validation"]
    (data / "predictions" / "images").mkdir(parents=True)
    for item in items:
        shutil.copy(data / item["label"], data / "predictions" / "images" / f"{item['case']}_seg.nii.gz")
    damaged = data / which.format(items[0]["case"])
    damaged.write_bytes(damaged.read_bytes()[:300])
    arguments = ["--datalist", data / "datalist.json", "--dataset_dir", data, "--predictions", data / "predictions"]
    result = metassl("evaluate", *arguments, "--out", tmp_path / "scores")
    assert result.exit_code == 1
    assert f"{which.format(items[0]['case'])}: cannot be read" in result.output
    assert not (tmp_path / "scores").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prepare", "acdc", "--source", "nowhere", "--labeled", "1", "--out", "x.json"], "holds no ACDC patient"),
        (["prepare", "adcd", "--source", ".", "--labeled", "1", "--out", "x.json"], "no reader for 'adcd'"),
        (["train", "acdc"], "no bundle 'acdc'"),
        (["infer", "phantom_segmentation", "--check_point", "x"], "--check_point: no config id of this name"),
        (["evaluate", "--datalist", "x", "--dataset-dir", ".", "--predictions", ".", "--out", "."], "is missing"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_a_mistake_is_one_message_without_a_traceback(arguments, message, tmp_path):
    program = "from metassl_monai.cli import main; main()"
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not list(tmp_path.iterdir())
