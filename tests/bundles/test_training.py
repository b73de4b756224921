# SPDX-License-Identifier: Apache-2.0
"""What every bundle does beyond training its overlays: properties, resume, export."""

from __future__ import annotations

import monai.bundle
import pytest
import torch

from metassl_monai.bundle.locate import bundle_names, bundle_path


@pytest.mark.parametrize("bundle", bundle_names())
def test_required_and_optional_properties_are_where_monai_looks(bundle, workflow, tmp_path):
    training = workflow(bundle, ["train"])
    training.initialize()
    assert training.check_properties() == []
    torch.save(training.network_def.state_dict(), tmp_path / "model.pt")
    inference = workflow(bundle, ["inference"], "infer", ckpt_path=str(tmp_path / "model.pt"))
    inference.initialize()
    assert inference.check_properties() == []


@pytest.mark.parametrize("bundle", bundle_names())
def test_the_best_or_the_last_network_is_kept(bundle, workflow, tmp_path):
    """Of two epochs, the first of which is said to be the best one."""
    kept, last = {}, {}
    for keep in ("best", "last"):
        folder = tmp_path / keep
        training = workflow(bundle, ["train", "supervised"], output_dir=str(folder), keep=keep, val_interval=1)
        training.initialize()
        validator = training.parser.get_parsed_content("validate::evaluator")
        validator.metric_cmp_fn = lambda current, best, validator=validator: validator.state.epoch == 1
        training.run()
        kept[keep] = torch.load(folder / "models" / "model.pt", weights_only=True)
        last[keep] = training.parser.get_parsed_content("network").state_dict()
        average = torch.load(folder / "models" / "model_ema.pt", weights_only=True)
        assert average.keys() == kept[keep].keys()
    assert all(value.equal(last["last"][key].cpu()) for key, value in kept["last"].items())
    assert any(not value.equal(last["best"][key].cpu()) for key, value in kept["best"].items())


def test_full_supervision_sees_the_hidden_labels_and_nothing_else_does(workflow):
    counts = {}
    for method in ("supervised", "full_supervised"):
        training = workflow("phantom_segmentation", ["train", method])
        training.initialize()
        counts[method] = len(training.train_dataset_data)
    assert counts == {"supervised": 1, "full_supervised": 4}


@pytest.mark.parametrize("bundle", bundle_names())
def test_a_trained_network_exports_to_torchscript(bundle, workflow, tmp_path):
    parser = workflow(bundle, ["train"]).parser
    network, channels = parser.get_parsed_content("network_def"), parser["network_def"]["in_channels"]
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
    axes = 3 if "patch_size" in parser else 2
    image = torch.rand(1, channels, *[32] * axes)
    torch.testing.assert_close(exported.eval()(image), network.eval()(image))


@pytest.mark.parametrize(("bundle", "method"), [("phantom_segmentation", "cps"), ("phantom_segmentation", "bcp")])
def test_the_whole_of_a_run_resumes(bundle, method, workflow, tmp_path):
    """Two epochs and then two more equal four, through the bundle's own files."""

    def state(folder, **overrides):
        training = workflow(bundle, ["train", method], output_dir=str(tmp_path / folder), **overrides)
        training.initialize()
        training.run()
        return torch.load(tmp_path / folder / "models" / "checkpoint.pt", weights_only=True)

    # the schedule and the ramp belong to the whole run, so that only the stop differs
    whole = {"iterations": 4, "lr_scheduler::total_iters": 4, "pretrain_iterations": 1}
    uninterrupted = state("whole", **whole)
    state("parts", **whole, epochs=2)
    resumed = state("parts", **whole, resume=True)
    assert resumed["iteration"] == uninterrupted["iteration"] == 4
    for part in ("method", "average"):
        for key, value in uninterrupted[part].items():
            assert torch.equal(value, resumed[part][key]), (part, key)
