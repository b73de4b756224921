# SPDX-License-Identifier: Apache-2.0
"""A first stage is used again by the run that it belongs to, and by no other one."""

from __future__ import annotations

import json
import logging
import re
import shutil

import pytest
import torch

from metassl_monai.apps.bundles import bundle_names, bundle_path

PHANTOM = "phantom_segmentation"
TWO_STAGES = [
    (name, method)
    for name in bundle_names()
    for method in ("bcp", "cml", "sdcl")
    if (bundle_path(name) / "configs" / f"{method}.json").is_file()
]


@pytest.fixture
def train(workflow, refusal, tmp_path):
    """Train two short stages in one folder; the time stamp of the first one's network, or the message of a refusal."""

    def run(bundle=PHANTOM, configs=("train", "bcp"), run_id="training", refused=False, **overrides):
        ids = {"output_dir": str(tmp_path / "out"), "overwrite": True, **overrides}  # the second stage may go
        message = refusal(workflow(bundle, list(configs), **ids), run_id)
        assert refused == (message is not None), message
        if refused:
            return message
        return (tmp_path / "out" / "models" / "pretrained.pt").stat().st_mtime_ns

    return run


@pytest.fixture
def other_datalist(phantom, tmp_path):
    """Write a datalist of the phantom in which the labeled and an unlabeled case changed places."""

    def write(swap):
        content = json.loads(phantom.read_text())
        if swap:
            hidden = {item["case"]: item for item in content["monitor"]}
            (labeled,) = content["labeled"]
            content["labeled"] = [hidden.pop(content["unlabeled"][0]["case"])]
            content["unlabeled"][0] = {key: value for key, value in labeled.items() if key != "label"}
            content["monitor"] = [*hidden.values(), labeled]
        (tmp_path / "lists").mkdir(exist_ok=True)
        path = tmp_path / "lists" / f"swapped_{swap}.json"
        path.write_text(json.dumps(content))
        return str(path)

    return write


@pytest.mark.parametrize(("bundle", "method"), TWO_STAGES)
def test_the_same_run_uses_it_again_and_one_of_another_seed_is_refused(bundle, method, train):
    made = train(bundle, ["train", method])
    assert train(bundle, ["train", method]) == made
    message = train(bundle, ["train", method], refused=True, seed=7)
    assert "pretrained.pt: is the first stage of another run: seed is 7 and was" in message


def test_other_labeled_cases_are_refused_and_named_even_when_resumed(train, other_datalist):
    train()
    for resume in (False, True):
        message = train(datalist=other_datalist(True), resume=resume, refused=True)
        assert re.search(r"labeled cases: now with images/.*, now without images/.*Remove ", message)


def test_places_devices_and_the_second_stage_do_not_matter(train, other_datalist, phantom, tmp_path, caplog):
    made = train()
    moved = tmp_path / "moved"
    shutil.copytree(phantom.parent, moved)
    same = {"dataset_dir": str(moved), "datalist": other_datalist(False), "num_workers": 1, "picture_interval": 3}
    with caplog.at_level(logging.INFO):
        assert train(**same, **{"optimizer::lr": 0.02}) == made
    assert "is used again" in caplog.text


@pytest.mark.parametrize(
    "setting",
    [{"pretrain::optimizer::lr": 0.5}, {"iterations": 6}, {"labeled_batch_size": 1}, {"features": [4, 8, 16, 32, 32]}],
)
def test_settings_that_it_depends_on_are_named(setting, train):
    train()
    (name,) = setting
    expected = "pretrain_iterations|pretrain::trainer::max_epochs" if name == "iterations" else name
    assert re.search(f"of another run: ({expected}) is ", train(**setting, refused=True))


def test_a_resumed_run_may_be_longer(train):
    made = train()
    assert train(iterations=6, resume=True) == made


def test_a_network_of_ones_own_is_used_with_a_warning(train, tmp_path, caplog):
    made = train()
    (tmp_path / "out" / "models" / "pretrained.json").unlink()
    assert train(seed=7) == made
    assert "no record tells what this network was made from" in caplog.text


def test_another_network_under_the_record_is_refused(train, tmp_path):
    train()
    path = tmp_path / "out" / "models" / "pretrained.pt"
    torch.save({key: value + 1 for key, value in torch.load(path, weights_only=True).items()}, path)
    assert re.search(r"is not the network that .*pretrained\.json was written for", train(refused=True))


def test_a_first_stage_of_its_own_leaves_what_the_training_uses(train):
    made = train(run_id="pretraining")
    assert train() == made


def test_a_first_stage_that_diverges_leaves_nothing(train, tmp_path):
    assert "is not finite" in train(pretrain_iterations=4, refused=True, **{"pretrain::optimizer::lr": 1e30})
    assert not (tmp_path / "out" / "models").exists()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"seed": 7}, "seed is 7 and was 1337"),
        ({"optimizer::lr": 0.5}, "optimizer::lr is 0.5 and was"),
        ({"preset": "ref_cps2d"}, "preset is ref_cps2d and was paper"),
        ({"amp": True}, "amp is true and was false"),
        ({"configs": ("train", "mean_teacher")}, "method_name is mean_teacher and was cps"),
        ({"configs": ("train", "plain")}, "labeled_loss"),
    ],
)
def test_a_checkpoint_is_resumed_by_its_own_run_alone(change, told, workflow, refusal, tmp_path):
    def run(configs=("train",), **overrides):
        return refusal(workflow(PHANTOM, list(configs), output_dir=str(tmp_path / "out"), **overrides))

    assert run(preset="paper") is None
    assert run(preset="paper", resume=True, iterations=3, num_workers=1, val_interval=3) is None
    assert told in run(**{"preset": "paper", "resume": True, "iterations": 4, **change})
