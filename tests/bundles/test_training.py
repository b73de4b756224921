# SPDX-License-Identifier: Apache-2.0
"""Every overlay of every bundle trains, in-process, on the tiny phantom."""

from __future__ import annotations

import itertools

import monai.bundle
import pytest
import torch
from monai.engines import SupervisedTrainer

from metassl_monai.apps.bundles import bundle_names, bundle_path
from metassl_monai.networks import UNet2D

METHODS = (None, "supervised", "full_supervised", "mean_teacher", "cps")


def configs(method, plain):
    return ["train", *([method] if method else []), *(["plain"] if plain else [])]


@pytest.mark.parametrize(("bundle", "method", "plain"), list(itertools.product(bundle_names(), METHODS, (False, True))))
def test_an_overlay_trains_and_exports_a_network(bundle, method, plain, workflow, tmp_path):
    training = workflow(bundle, configs(method, plain))
    training.initialize()
    trainer = training.trainer
    assert isinstance(trainer, SupervisedTrainer)
    before = {key: value.clone() for key, value in trainer.method.state_dict().items()}
    training.run()
    assert trainer.state.iteration == 2
    assert any(not torch.equal(before[key], value) for key, value in trainer.method.state_dict().items())
    assert all(torch.isfinite(value) for value in trainer.state.losses.values())
    assert any(key.startswith("regions/") for key in trainer.state.metrics) is not plain
    exported = torch.load(tmp_path / "out" / "models" / "model.pt", weights_only=True)
    UNet2D(1, 4, features=(4, 8, 16, 32, 64)).load_state_dict(exported)
    assert (tmp_path / "out" / "pictures" / "epoch_0002.png").is_file()


@pytest.mark.parametrize("bundle", bundle_names())
def test_required_and_optional_properties_are_where_monai_looks(bundle, workflow):
    training = workflow(bundle, ["train"])
    training.initialize()
    assert training.check_properties() == []
    inference = workflow(bundle, ["inference"], "infer", ckpt_path=__file__)
    inference.initialize()
    assert inference.check_properties() == []


def test_full_supervision_sees_the_hidden_labels_and_nothing_else_does(workflow):
    counts = {}
    for method in ("supervised", "full_supervised"):
        training = workflow("phantom_segmentation", ["train", method])
        training.initialize()
        counts[method] = len(training.train_dataset_data)
    assert counts == {"supervised": 1, "full_supervised": 4}


@pytest.mark.parametrize("bundle", bundle_names())
def test_a_trained_network_exports_to_torchscript(bundle, tmp_path):
    network = UNet2D(1, 4, features=(4, 8, 16, 32, 64))
    torch.save(network.state_dict(), tmp_path / "model.pt")
    folder = bundle_path(bundle) / "configs"
    monai.bundle.ckpt_export(
        "network_def",
        filepath=str(tmp_path / "model.ts"),
        ckpt_file=str(tmp_path / "model.pt"),
        meta_file=str(folder / "metadata.json"),
        config_file=str(folder / "inference.json"),
        features=[4, 8, 16, 32, 64],
    )
    exported = torch.jit.load(tmp_path / "model.ts")
    image = torch.rand(1, 1, 32, 32)
    torch.testing.assert_close(exported.eval()(image), network.eval()(image))


def test_the_whole_of_a_run_resumes(workflow, tmp_path):
    """Two epochs and then two more equal four, through the bundle's own files."""

    def state(folder, **overrides):
        training = workflow("phantom_segmentation", ["train"], output_dir=str(tmp_path / folder), **overrides)
        training.initialize()
        training.run()
        return torch.load(tmp_path / folder / "models" / "checkpoint.pt", weights_only=True)

    # the schedule and the ramp belong to the whole run, so that only the stop differs
    whole = {"iterations": 4, "lr_scheduler::total_iters": 4}
    uninterrupted = state("whole", **whole)
    state("parts", **whole, epochs=2)
    resumed = state("parts", **whole, resume=True)
    assert resumed["iteration"] == uninterrupted["iteration"] == 4
    for key, value in uninterrupted["method"].items():
        assert torch.equal(value, resumed["method"][key]), key
