# SPDX-License-Identifier: Apache-2.0
"""MONAI's apps initialize a workflow without running it: that needs no data, no network file, and leaves nothing."""

from __future__ import annotations

import json

import monai.bundle
import pytest
import torch
from monai.bundle import ConfigWorkflow, create_workflow
from monai.fl.client import MonaiAlgo
from monai.fl.utils.constants import ExtraItems

from metassl_monai.bundle import user_mistake
from metassl_monai.bundle.locate import bundle_names, bundle_path, config_files, copy_bundle

TINY = {"features": [4, 8, 16, 32, 64]}


def workflow(bundle, names, kind):
    files = [str(file) for file in config_files(bundle_path(bundle), names)]
    return create_workflow(config_file=files, workflow_type=kind, logging_file=False, **TINY)


@pytest.mark.parametrize("bundle", bundle_names())
def test_a_bundle_gives_its_network_without_data(bundle, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    network = workflow(bundle, ["train"], "train").network_def
    copy = copy_bundle(bundle, tmp_path)
    (copy / "models").mkdir()
    torch.save(network.state_dict(), copy / "models" / "model.pt")
    before = sorted(tmp_path.rglob("*"))
    for kind in ("train", "inference"):
        loaded = monai.bundle.load(
            bundle, bundle_dir=str(tmp_path), source="monaihosting", workflow_type=kind, net_override=TINY
        )
        for key, value in network.state_dict().items():
            assert torch.equal(value, loaded.state_dict()[key]), key
    for names, kind in ((["inference"], "infer"), (["train", "evaluate"], "train")):
        assert type(workflow(bundle, names, kind).network_def) is type(network)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("names", "run_id", "message"),
    [
        (["train"], "run", "datalist.json: the file is missing"),
        (["train", "bcp"], "pretraining", "datalist.json: the file is missing"),
        (["inference"], "run", "no network at ./models/model.pt: train first"),
        (["train", "evaluate"], "evaluating", "no network at ./models/model.pt: train first"),
    ],
    ids=["train", "pretrain", "infer", "evaluate"],
)
@pytest.mark.parametrize("bundle", [name for name in bundle_names() if name != "phantom_segmentation"])
def test_a_run_is_refused_as_an_exception_that_a_server_can_catch(
    bundle, names, run_id, message, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    run = workflow(bundle, names, "infer" if names == ["inference"] else "train")
    run.run_id = run_id
    with pytest.raises(RuntimeError) as error:
        run.run()
    assert message in str(user_mistake(error.value))
    assert not list(tmp_path.iterdir())


def test_the_phantom_is_drawn_when_a_run_starts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    size = {"size": (32, 32, 3), "cases": 7, "labeled": 1, "validation": 2, "test": 1}
    training = ConfigWorkflow(
        config_file=str(bundle_path("phantom_segmentation") / "configs" / "train.json"),
        workflow_type="train",
        logging_file=False,
        **TINY,
        **{"spatial_size": [32, 32], "iterations": 1, "phantom": size},
    )
    training.initialize()
    assert not list(tmp_path.iterdir())
    training.run()
    assert list(tmp_path.rglob("datalist.json"))
    assert (tmp_path / "models" / "model.pt").is_file()


def test_federated_learning_initializes_with_its_default_files(phantom, tmp_path):
    copy = copy_bundle("phantom_segmentation", tmp_path)
    file = copy / "configs" / "train.json"
    data = {"dataset_dir": str(phantom.parent), "spatial_size": [32, 32], "iterations": 1, "num_workers": 0, **TINY}
    file.write_text(json.dumps(json.loads(file.read_text()) | data))
    algorithm = MonaiAlgo(bundle_root=copy.name)
    algorithm.initialize(extra={ExtraItems.CLIENT_NAME: "site", ExtraItems.APP_ROOT: str(tmp_path)})
    assert algorithm.trainer.network is not None
    assert algorithm.evaluator.state.key_metric_name == "val_mean_dice"
