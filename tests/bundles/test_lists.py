# SPDX-License-Identifier: Apache-2.0
"""A list may be empty where nothing needs it, in every bundle alike, and nowhere else."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from metassl_monai.bundle.locate import bundle_command, bundle_names, bundle_path, config_files

PHANTOM = "phantom_segmentation"


@pytest.fixture
def without(datalist_of, tmp_path):
    """The overrides of a run whose datalist has some lists emptied."""

    def empty(bundle, *lists):
        content = json.loads(datalist_of(bundle).read_text())
        path = tmp_path / "fewer.json"
        path.write_text(json.dumps({**content, **{key: [] for key in lists}}))
        return {"datalist": str(path)}

    return empty


@pytest.mark.parametrize("bundle", bundle_names())
@pytest.mark.parametrize("method", ["supervised", "full_supervised"])
def test_learning_from_labels_alone_needs_no_unlabeled_case(bundle, method, workflow, without, refusal, tmp_path):
    training = workflow(bundle, ["train", method, "plain"], **without(bundle, "unlabeled", "monitor"))
    assert refusal(training) is None
    assert list(training.trainer.data_loader.streams) == ["labeled"]
    assert (tmp_path / "out" / "models" / "model.pt").is_file()


@pytest.mark.parametrize("bundle", bundle_names())
def test_the_last_network_is_kept_without_validation_cases(bundle, workflow, without, refusal, tmp_path):
    training = workflow(bundle, ["train", "supervised"], keep="last", **without(bundle, "validation"))
    assert refusal(training) is None
    kept = torch.load(tmp_path / "out" / "models" / "model.pt", weights_only=True)
    assert all(value.equal(kept[key]) for key, value in training.trainer.network.state_dict().items())


def test_labels_alone_are_all_it_takes(workflow, without, refusal):
    lists = without(PHANTOM, "unlabeled", "monitor", "validation")
    assert refusal(workflow(PHANTOM, ["train", "supervised", "hidden_labels", "monitor"], keep="last", **lists)) is None


@pytest.mark.parametrize("bundle", bundle_names())
@pytest.mark.parametrize("method", ["cps", "bcp", "mean_teacher"])
def test_a_method_that_learns_from_unlabeled_cases_is_refused_without(bundle, method, workflow, without, refusal):
    message = refusal(workflow(bundle, ["train", method], **without(bundle, "unlabeled", "monitor")))
    assert "the list 'unlabeled' is empty: add cases to it" in message
    assert len(message.splitlines()) == 2


def test_a_method_of_entropy_alone_needs_unlabeled_cases_too(workflow, without, refusal):
    bundle = "acdc_cardiac_mri_segmentation"
    lists = without(bundle, "unlabeled", "monitor")
    assert "'unlabeled' is empty" in refusal(workflow(bundle, ["train", "em"], **lists))
    # without the checks the stream itself refuses
    assert "the unlabeled stream yields no batch" in refusal(
        workflow(bundle, ["train", "em"], check_data=False, **lists)
    )


def test_full_supervision_without_the_hidden_labels_is_refused(workflow, without, refusal):
    message = refusal(workflow(PHANTOM, ["train", "full_supervised"], **without(PHANTOM, "monitor")))
    assert "the list 'monitor' is empty" in message


@pytest.mark.parametrize("keep", ["lst", "none"])
def test_an_unknown_network_to_keep_is_refused(keep, workflow, refusal, tmp_path):
    assert f"--keep {keep}: choose best or last" in refusal(workflow(PHANTOM, ["train"], keep=keep))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("bundle", bundle_names())
def test_the_best_cannot_be_chosen_by_cases_without_a_structure(bundle, workflow, own_copy, erase, refusal, tmp_path):
    datalist = own_copy(bundle)
    for item in json.loads(datalist.read_text())["validation"]:
        erase(datalist.parent / item["label"])
    paths = {"dataset_dir": str(datalist.parent), "datalist": str(datalist)}
    message = refusal(workflow(bundle, ["train", "supervised"], keep="best", **paths))
    assert "no label of 'validation' has a structure" in message
    assert "or pass --keep last" in message
    assert not (tmp_path / "out").exists()
    assert refusal(workflow(bundle, ["train", "supervised"], keep="last", iterations=1, **paths)) is None


def test_two_processes_need_no_list_more_than_one(phantom, without, tmp_path):
    configs = config_files(bundle_path(PHANTOM), ["train", "supervised", "multi_gpu_train"])
    lists = without(PHANTOM, "unlabeled", "monitor", "validation")
    arguments = ["--dataset_dir", str(phantom.parent), "--datalist", lists["datalist"], "--keep", "last"]
    arguments += ["--spatial_size", "[32,32]", "--features", "[4,8,16,32,64]", "--iterations", "2"]
    command = bundle_command("training", configs, [*arguments, "--labeled_batch_size", "1", "--output_dir", "out"])
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    result = subprocess.run([*launcher, *command[1:]], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    assert (tmp_path / "out" / "models" / "model.pt").is_file()
