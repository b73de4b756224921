# SPDX-License-Identifier: Apache-2.0
"""DualNet in the bundles: what it exports is what inference loads, and what the release left of its terms."""

from __future__ import annotations

import pytest
import torch

from metassl_monai.engines import prepare_streams
from metassl_monai.networks import MeanOfTwo, ResNet34VNet3D, VNet3D

LA = "la_atrium_mri_segmentation"
# by bundle, the overlay for inference, the tiny images, and the batch size
BUNDLES = {LA: ("dualnet_inference", (32, 32, 32)), "phantom_segmentation": ("mean_of_two", (32, 32))}


@pytest.mark.parametrize("bundle", BUNDLES)
def test_inference_loads_the_two_networks_that_training_exported(bundle, workflow, tmp_path):
    overlay, size = BUNDLES[bundle]
    training = workflow(bundle, ["train", "dualnet"])
    training.initialize()
    training.run()
    exported = tmp_path / "out" / "models" / "model.pt"
    trained = training.trainer.method.inference_network
    trained.load_state_dict(torch.load(exported, weights_only=True))
    inference = workflow(bundle, ["inference", overlay], "infer", ckpt_path=str(exported))
    inference.initialize()
    inference.run()
    assert isinstance(inference.network_def, MeanOfTwo)
    image = torch.rand(1, 1, *size)
    assert inference.network_def.eval()(image).equal(trained.eval()(image))


def test_the_second_network_is_a_resnet_of_the_same_size(workflow):
    method = workflow(LA, ["train", "dualnet", "la_small"]).parser.get_parsed_content("method_def")
    assert type(method.network) is VNet3D
    assert type(method.second_network) is ResNet34VNet3D
    keys = method.network.decoder.state_dict()
    assert all(value.shape == keys[key].shape for key, value in method.second_network.decoder.state_dict().items())


def test_learning_rate_falls_tenfold_after_2500_and_5000_of_6000_iterations(workflow):
    parser = workflow(LA, ["train", "dualnet"], iterations=6000, iterations_per_epoch=250).parser
    scheduler, optimizer = (parser.get_parsed_content(name) for name in ("lr_scheduler", "optimizer"))
    rates = []
    for _ in range(6000):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert [rates.index(pytest.approx(rate)) for rate in (0.01, 0.001, 0.0001)] == [0, 2500, 5000]
    assert len({round(rate, 7) for rate in rates}) == 3


def test_what_the_release_optimizes(workflow):
    run = workflow(LA, ["train", "dualnet", "plain", "ref_dualnet"])
    run.initialize()
    trainer = run.trainer
    batch = prepare_streams(next(iter(trainer.data_loader)), torch.device("cpu"))
    terms, _ = trainer.method(batch, 0)
    assert set(terms) == {
        *("labeled/network", "labeled/second_network"),
        *("extra/regularization", "extra/uncertainty", "extra/review"),
    }
