# SPDX-License-Identifier: Apache-2.0
"""The commands of the README, as a user types them, on the tiny phantom."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from statistics import fmean

import nibabel
import numpy as np
import pytest
import torch
from forked import run_module

from metassl_monai.apps.evaluate import evaluate_predictions
from metassl_monai.bundle.locate import bundle_command, bundle_path, config_files

BUNDLE = "phantom_segmentation"
SIZE = ["--spatial_size", "[32,32]", "--features", "[4,8,16,32,64]"]
SHORT = ["--iterations", "4", "--iterations_per_epoch", "2", "--labeled_batch_size", "2", "--unlabeled_batch_size", "2"]
WATCHED = """
import atexit, pathlib, runpy
comms = pathlib.Path("/proc/self/task").glob
atexit.register(lambda: print("threads at the end:", *sorted(file.read_text().strip() for file in comms("*/comm"))))
runpy.run_module("monai.bundle", run_name="__main__", alter_sys=True)
"""


def run(command, cwd, **environment):
    result = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return result


def bundle_run(run_id, names, arguments, cwd):
    command = bundle_command(run_id, config_files(bundle_path(BUNDLE), names), arguments)
    result = run_module(command[2:], cwd)
    assert result.returncode == 0, result.stderr[-3000:]


@pytest.fixture(scope="module")
def trained(phantom, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    data = ["--dataset_dir", str(phantom.parent), "--datalist", str(phantom)]
    tracking = ["--tracking", str(bundle_path(BUNDLE) / "configs" / "tracking.json")]
    arguments = [*data, *SIZE, *SHORT, *tracking, "--output_dir", "out"]
    command = bundle_command("training", config_files(bundle_path(BUNDLE), ["train"]), arguments)
    run([sys.executable, "-W", "ignore", *command[1:]], folder)  # all else is forked, which is quicker
    return folder, data


def test_tracking_holds_parameters_metrics_and_pictures(trained):
    import mlflow

    folder, _ = trained
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlruns.db'}")
    experiment = client.get_experiment_by_name(BUNDLE)
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.status == "FINISHED"
    assert found.data.params["method"] == "cps"
    assert found.data.params["preset"] == "paper"
    assert found.data.params["seed"] == "1337"
    metrics = found.data.metrics
    for name in (
        "loss",
        "loss/labeled/network",
        "loss/unlabeled/second_network",
        "regions/unlabeled/network/UC",
        "threshold/labeled/network/3",
        "val_mean_dice",
        "val_dice/left_ventricle",
    ):
        assert name in metrics, name
    assert len(client.get_metric_history(found.info.run_id, "loss")) == 2
    artifacts = {artifact.path for artifact in client.list_artifacts(found.info.run_id)}
    assert "epoch_0002.png" in artifacts
    (saved,) = (folder / "out").glob("config_*.json")
    assert [path for path in artifacts if path.startswith("config_")] == [saved.name]


def test_the_saved_config_is_the_one_that_ran(trained):
    folder, data = trained
    (saved,) = (folder / "out").glob("config_*.json")
    config = json.loads(saved.read_text())
    assert config["dataset_dir"] == data[1]
    assert config["spatial_size"] == [32, 32]
    assert config["iterations"] == 4
    assert config["experiment_name"] == BUNDLE
    assert config["preset"] == "paper"
    assert config["train"]["handlers"][-1]["_target_"].endswith("SafeMLFlowHandler")


@pytest.fixture(scope="module")
def predictions(trained):
    folder, data = trained
    arguments = [*data, *SIZE, "--ckpt_path", "out/models/model.pt", "--output_dir", "inferred"]
    extras = ["--save_uncertainty", "True", "--save_probabilities", "True"]
    bundle_run("inference", ["inference"], [*arguments, *extras], folder)
    return folder / "inferred" / "predictions"


def test_a_second_training_in_the_folder_is_refused_and_destroys_nothing(trained):
    folder, data = trained
    before = {path: path.read_bytes() for path in sorted((folder / "out" / "models").glob("*.pt"))}
    command = bundle_command(
        "training", config_files(bundle_path(BUNDLE), ["train"]), [*data, *SIZE, *SHORT, "--output_dir", "out"]
    )
    result = run_module(command[2:], folder)
    assert result.returncode != 0
    assert "is of an earlier training" in result.stderr
    assert before
    assert all(path.read_bytes() == content for path, content in before.items())


def test_predictions_lie_in_the_geometry_of_their_images(predictions, phantom):
    item = json.loads(phantom.read_text())["validation"][0]
    image = nibabel.load(phantom.parent / item["image"])
    stem = predictions / "images" / item["case"]
    segmentation = nibabel.load(f"{stem}_seg.nii.gz")
    assert segmentation.shape == image.shape
    np.testing.assert_allclose(segmentation.affine, image.affine, atol=1e-4)
    assert segmentation.get_data_dtype() == np.uint8
    assert set(np.unique(segmentation.dataobj)) <= {0, 1, 2, 3}
    uncertainty = nibabel.load(f"{stem}_uncertainty.nii.gz").get_fdata()
    assert uncertainty.shape == image.shape
    assert 0 <= uncertainty.min() <= uncertainty.max() <= np.log(4) + 1e-5
    probabilities = nibabel.load(f"{stem}_probabilities.nii.gz").get_fdata()
    np.testing.assert_allclose(probabilities.sum(-1), 1, atol=1e-4)
    np.testing.assert_array_equal(probabilities.argmax(-1), np.asarray(segmentation.dataobj))


def test_both_ways_to_evaluate_give_the_same_table(trained, predictions, phantom):
    folder, data = trained
    rows = evaluate_predictions(phantom, phantom.parent, "validation", predictions, folder / "evaluated")
    bundle_run("evaluating", ["train", "evaluate"], [*data, *SIZE, "--output_dir", "out"], folder)
    stored = json.loads((folder / "out" / "evaluation_validation" / "metrics.json").read_text())["cases"]
    assert [row["structure"] for row in stored[:4]] == ["right ventricle", "myocardium", "left ventricle", "mean"]
    for mine, theirs in zip(rows, stored, strict=True):
        assert mine["case"] == theirs["case"]
        for key in ("dice", "hd95_mm", "asd_voxel"):
            assert theirs[key] is None or mine[key] == pytest.approx(theirs[key], abs=1e-5)
    assert (folder / "evaluated" / "cases.csv").read_text().startswith("case,subject,structure,dice")


def test_two_processes_train_together(phantom, tmp_path):
    configs = config_files(bundle_path(BUNDLE), ["train", "mean_teacher", "multi_gpu_train"])
    arguments = ["--dataset_dir", str(phantom.parent), "--datalist", str(phantom), *SIZE, *SHORT]
    command = bundle_command("training", configs, [*arguments, "--labeled_batch_size", "1", "--output_dir", "out"])
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    (tmp_path / "watched.py").write_text(WATCHED)
    assert command[1:3] == ["-m", "monai.bundle"]
    result = run([*launcher, "watched.py", *command[3:]], tmp_path, CUDA_VISIBLE_DEVICES="")
    ends = re.findall(r"threads at the end: (.*)", result.stdout)
    assert len(ends) == 2
    assert not any("gloo" in threads for threads in ends)  # one that outlives Python may abort what is done
    checkpoint = torch.load(tmp_path / "out" / "models" / "checkpoint.pt", weights_only=True)
    assert checkpoint["iteration"] == 4
    assert not any(key.startswith("module.") for key in checkpoint["method"])
    assert len(list((tmp_path / "out").glob("config_*.json"))) == 1
    configs = config_files(bundle_path(BUNDLE), ["train", "mean_teacher", "evaluate", "multi_gpu_train"])
    evaluate = bundle_command("evaluating", configs, [*arguments, "--output_dir", "out"])
    run([*launcher, *evaluate[1:]], tmp_path, CUDA_VISIBLE_DEVICES="")
    rows = json.loads((tmp_path / "out" / "evaluation_validation" / "metrics.json").read_text())["cases"]
    scores = {row["case"]: row["dice"] for row in rows if row["structure"] == "mean"}
    cases = [item["case"] for item in json.loads(phantom.read_text())["validation"]]
    assert sorted(scores) == sorted(cases)  # those of both processes
    # the network that was measured is the one that was saved
    assert fmean(scores.values()) == pytest.approx(checkpoint["evaluator"]["best_metric"], abs=1e-5)


def test_inference_without_a_network_says_so(phantom, tmp_path):
    command = bundle_command("inference", config_files(bundle_path(BUNDLE), ["inference"]))
    result = subprocess.run(
        [sys.executable, "-W", "ignore", *command[1:]], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode != 0
    assert "Traceback" not in result.stderr
    assert "no network at ./models/model.pt: train first" in result.stderr
