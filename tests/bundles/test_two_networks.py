# SPDX-License-Identifier: Apache-2.0
"""Methods that export two networks: what is trained, evaluated and used for inference is their mean."""

from __future__ import annotations

import json

import pytest
import torch

from metassl_monai.bundle.locate import bundle_names, bundle_path
from metassl_monai.networks import MeanOfTwo

METHODS = ("cml",)
BUNDLES = [name for name in bundle_names() if (bundle_path(name) / "configs" / "mean_of_two.json").is_file()]


@pytest.fixture
def run(workflow):
    def run(bundle, names, workflow_type="train", **overrides):
        built = workflow(bundle, names, workflow_type, **overrides)
        built.initialize()
        built.run()
        return built

    return run


@pytest.mark.parametrize("bundle", BUNDLES)
def test_the_two_networks_of_inference_are_each_the_one_of_a_single_inference(bundle):
    configs = bundle_path(bundle) / "configs"
    single, two = (json.loads((configs / f"{name}.json").read_text()) for name in ("inference", "mean_of_two"))
    assert set(two) == {"_desc_", "network_def"}
    assert two["network_def"]["first"] == single["network_def"]
    assert two["network_def"]["second"] == "%network_def::first"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bundle", BUNDLES)
def test_training_evaluation_and_inference_use_the_same_two_networks(bundle, method, run, tmp_path):
    trained = run(bundle, ["train", method]).trainer.method.inference_network
    model = tmp_path / "out" / "models" / "model.pt"
    saved = torch.load(model, weights_only=True)
    assert {key.split(".")[0] for key in saved} == {"first", "second"}
    parser = run(bundle, ["train", method, "evaluate"], run_id="evaluating").parser
    assert (tmp_path / "out" / "evaluation_validation" / "cases.csv").is_file()
    evaluated = parser.get_parsed_content("network")
    inference = run(bundle, ["inference", "mean_of_two"], "infer", ckpt_path=str(model), split="validation")
    assert list((tmp_path / "out" / "predictions").rglob("*_seg.*"))
    channels = inference.parser["network_def"]["first"]["in_channels"]
    image = torch.rand(1, channels, *([32] * 3 if "patch_size" in inference.parser else [32] * 2))
    trained.load_state_dict(saved)  # the best one, which need not be the last
    assert isinstance(inference.network_def, MeanOfTwo)
    for network in (evaluated, inference.network_def):
        assert all(value.equal(saved[key]) for key, value in network.state_dict().items())
        torch.testing.assert_close(network.eval()(image), trained.eval()(image))


@pytest.mark.parametrize("method", METHODS)
def test_inference_without_the_overlay_refuses_two_networks(method, workflow, refusal, run, tmp_path):
    run("phantom_segmentation", ["train", method])
    model = tmp_path / "out" / "models" / "model.pt"
    inference = workflow("phantom_segmentation", ["inference"], "infer", ckpt_path=str(model), split="validation")
    assert "give the overlays and ids that it was trained with" in refusal(inference)
