# SPDX-License-Identifier: Apache-2.0
"""Training data on the device: every bundle trains with them, what is resumed equals what was not interrupted."""

from __future__ import annotations

import pytest
import torch

from metassl_monai.bundle.locate import bundle_names, bundle_path


@pytest.mark.parametrize("bundle", bundle_names())
def test_every_bundle_trains_on_batches_made_on_the_device(bundle, workflow, tmp_path):
    training = workflow(bundle, ["train", "device_data"])
    training.initialize()
    training.run()
    trainer = training.parser.get_parsed_content("train::trainer")
    assert trainer.state.iteration == 2
    images, label = trainer.state.batch["image"], trainer.state.batch["label"]
    assert len(images) == 2
    assert images.dtype == torch.float32
    assert label.shape == (2, 1, *images.shape[2:])
    assert (tmp_path / "out" / "models" / "model.pt").is_file()


@pytest.mark.parametrize("bundle", bundle_names())
def test_cases_are_read_once(bundle, workflow):
    """What a data set keeps are voxels, not names of files: MONAI caches nothing before a nested Compose."""
    parser = workflow(bundle, ["train", "hidden_labels"]).parser
    for name in ("train::dataset", "train::unlabeled_dataset", "validate::dataset", "hidden_labels::dataset"):
        dataset = parser.get_parsed_content(name)
        kept = getattr(dataset, "volumes", getattr(dataset, "tiles", getattr(dataset, "_cache", None)))
        # validation volumes may be left in their files, for want of memory
        assert kept is not None or name == "validate::dataset"
        assert all(isinstance(item["image"], torch.Tensor) for item in kept or ())


@pytest.mark.parametrize("names", [["supervised"], ["fixmatch"], ["bcp"], ["cps", "hidden_labels"]])
def test_other_overlays_go_with_it(names, workflow):
    training = workflow("phantom_segmentation", ["train", *names, "device_data"])
    training.initialize()
    training.run()
    assert training.parser.get_parsed_content("train::trainer").state.iteration == 2


def test_a_run_resumes(workflow, tmp_path):
    def state(folder, **overrides):
        names = ["train", "fixmatch", "device_data"]
        training = workflow("phantom_segmentation", names, output_dir=str(tmp_path / folder), **overrides)
        training.initialize()
        training.run()
        return torch.load(tmp_path / folder / "models" / "checkpoint.pt", weights_only=True)

    whole = {"iterations": 4, "lr_scheduler::total_iters": 4}
    uninterrupted = state("whole", **whole)
    state("parts", **whole, epochs=2)
    resumed = state("parts", **whole, resume=True)
    for key, value in uninterrupted["method"].items():
        assert torch.equal(value, resumed["method"][key]), key


def test_the_overlay_is_the_same_in_every_bundle():
    files = {(bundle_path(bundle) / "configs" / "device_data.json").read_text() for bundle in bundle_names()}
    assert len(files) == 1
