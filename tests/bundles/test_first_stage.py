# SPDX-License-Identifier: Apache-2.0
"""A first stage is used again by the run that it belongs to, and by no other one."""

from __future__ import annotations

import json
import logging
import re
import shutil

import pytest
import torch
from ignite.engine import Events

from metassl_monai.bundle.locate import bundle_names, bundle_path
from metassl_monai.finite import first_not_finite

PHANTOM = "phantom_segmentation"
# a recipe writes the first stage alike into every bundle: one in 2D and one in 3D stand for all but in the slow run
OFTEN = (PHANTOM, "la_atrium_mri_segmentation")
TWO_STAGES = [
    pytest.param(name, method, marks=() if name in OFTEN else pytest.mark.slow)
    for name in bundle_names()
    for method in ("bcp", "cml", "sdcl")
    if (bundle_path(name) / "configs" / f"{method}.json").is_file()
]


@pytest.fixture
def train(workflow, refusal, tmp_path):
    """Train two short stages in one folder; the time stamp of the first one's network, or the message of a refusal."""

    def run(bundle=PHANTOM, configs=("train", "bcp"), run_id="training", refused=False, **overrides):
        may_go = not overrides.get("resume", False)  # the second stage
        ids = {"output_dir": str(tmp_path / "out"), "overwrite": may_go, **overrides}
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


def test_a_first_stage_that_diverges_leaves_no_network_and_its_last_finite_epoch(train, tmp_path):
    assert "is not finite" in train(pretrain_iterations=4, refused=True, **{"pretrain::optimizer::lr": 1e30})
    models = tmp_path / "out" / "models"
    assert sorted(file.name for file in models.iterdir()) == [".training.lock", "pretrained_checkpoint.pt"]
    checkpoint = torch.load(models / "pretrained_checkpoint.pt", weights_only=True)
    assert checkpoint["epoch"] == 1
    assert first_not_finite(checkpoint["method"]) is None


class GoneError(Exception):
    """What stands for a process that is killed."""


@pytest.fixture
def killed(workflow):
    """Run a workflow until the first stage has begun an iteration, and no further."""

    def run(bundle, method, iteration, run_id="training", **overrides):
        def gone(engine):
            raise GoneError

        stage = workflow(bundle, ["train", method], **overrides)
        stage.run_id = run_id
        stage.initialize()
        stage.parser.get_parsed_content("checks")  # builds the method first, as a run does: weights are drawn in order
        trainer = stage.parser.get_parsed_content("pretrain::trainer")
        trainer.add_event_handler(Events.ITERATION_STARTED(once=iteration), gone)
        with pytest.raises(RuntimeError) as caught:
            stage.run()
        error = caught.value
        while error.__cause__ is not None:
            error = error.__cause__
        assert isinstance(error, GoneError)

    return run


@pytest.mark.parametrize(("bundle", "method"), TWO_STAGES)
def test_a_first_stage_that_was_killed_goes_on_at_its_last_epoch(
    bundle, method, killed, workflow, refusal, differences, tmp_path
):
    stage = {"pretrain_iterations": 4, "check_data": False}
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert refusal(workflow(bundle, ["train", method], output_dir=str(whole), **stage), "pretraining") is None
    killed(bundle, method, 4, "pretraining", output_dir=str(broken), **stage)
    assert sorted(file.name for file in (broken / "models").glob("*.pt")) == [
        "pretrained_checkpoint.pt",
        "pretrained_checkpoint_previous.pt",
    ]
    made = []
    again = workflow(bundle, ["train", method], output_dir=str(broken), resume=True, **stage)
    again.run_id = "pretraining"
    again.initialize()
    trainer = again.parser.get_parsed_content("pretrain::trainer")
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: made.append(engine.state.iteration))
    again.run()
    assert made == [4]
    first, second = (torch.load(out / "models" / "pretrained.pt", weights_only=True) for out in (whole, broken))
    assert differences(first, second) == []
    assert [file.name for file in (broken / "models").glob("*.pt")] == ["pretrained.pt"]


@pytest.mark.parametrize("method", ["bcp", "cml"])
@pytest.mark.parametrize("iteration", [1, 3])
def test_the_training_after_it_is_the_uninterrupted_one(
    method, iteration, killed, workflow, refusal, differences, tmp_path
):
    lengths = {"pretrain_iterations": 3, "iterations": 3}
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert refusal(workflow(PHANTOM, ["train", method], output_dir=str(whole), **lengths), "training") is None
    killed(PHANTOM, method, iteration, output_dir=str(broken), **lengths)
    again = workflow(PHANTOM, ["train", method], output_dir=str(broken), resume=True, **lengths)
    assert refusal(again, "training") is None
    for name in ("pretrained.pt", "checkpoint.pt", "checkpoint_previous.pt", "model.pt", "model_ema.pt"):
        first, second = (torch.load(out / "models" / name, weights_only=True) for out in (whole, broken))
        assert differences(first, second) == [], name
    assert (whole / "history.csv").read_bytes() == (broken / "history.csv").read_bytes()


def test_a_first_stage_that_was_killed_is_not_begun_again_by_mistake(killed, workflow, refusal, tmp_path):
    out = {"output_dir": str(tmp_path / "out"), "pretrain_iterations": 3}
    killed(PHANTOM, "bcp", 3, **out)
    told = refusal(workflow(PHANTOM, ["train", "bcp"], **out), "training")
    assert "pretrained_checkpoint.pt: is of an earlier training" in told
    other = workflow(PHANTOM, ["train", "bcp"], resume=True, seed=7, **out)
    assert "pretrained_checkpoint.pt: this run is not the one" in refusal(other, "training")
    assert refusal(workflow(PHANTOM, ["train", "bcp"], overwrite=True, **out), "training") is None


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
