# SPDX-License-Identifier: Apache-2.0
"""MONAI Label trains with its own studies and infers; where it is installed, through the code of its app."""

from __future__ import annotations

import json
import shutil

import nibabel
import pytest
import torch
from monai.bundle import ConfigParser

from metassl_monai.bundle import user_mistake
from metassl_monai.bundle.locate import copy_bundle
from metassl_monai.data import validate_datalist
from metassl_monai.integrations.monai_label import SemiSupervisedTrainTask, studies_datalist

SMALL = {"spatial_size": [32, 32], "iterations_per_epoch": 1, "features": [4, 8, 16, 32, 64], "num_workers": 0}


@pytest.fixture
def server(phantom, tmp_path):
    """Studies as MONAI Label's local datastore keeps them, and a bundle that it may train."""
    pytest.importorskip("monailabel.tasks.train.bundle", reason="MONAI Label is not installed")
    from monailabel.datastore.local import LocalDatastore

    datalist = json.loads(phantom.read_text())
    studies = tmp_path / "studies"
    (studies / "labels" / "final").mkdir(parents=True)
    for name in ("labeled", "validation", "unlabeled"):
        for item in datalist[name]:
            shutil.copy(phantom.parent / item["image"], studies / f"{item['case']}.nii.gz")
            if "label" in item:
                shutil.copy(phantom.parent / item["label"], studies / "labels" / "final" / f"{item['case']}.nii.gz")
    bundle = copy_bundle("phantom_segmentation", tmp_path)
    for name in ("train", "inference"):
        file = bundle / "configs" / f"{name}.json"
        content = json.loads(file.read_text())
        file.write_text(json.dumps(content | {key: value for key, value in SMALL.items() if key in content}))
    return LocalDatastore(str(studies), auto_reload=False), bundle


def train(bundle, datastore, **request):
    task = SemiSupervisedTrainTask(str(bundle), {})
    assert task.is_valid()
    return task({"model": bundle.name, "device": "cpu", "max_epochs": 1, **request}, datastore)


def test_monai_label_trains_with_its_unlabeled_studies_and_nothing_else(server, phantom, tmp_path, monkeypatch):
    datastore, bundle = server
    monkeypatch.chdir(tmp_path)
    train(bundle, datastore, val_split=0.4)
    datalist = json.loads((bundle / "monailabel_datalist.json").read_text())
    hidden = {f"{item['case']}.nii.gz" for item in json.loads(phantom.read_text())["unlabeled"]}
    assert {item["image"] for item in datalist["unlabeled"]} == hidden
    assert len(datalist["labeled"]) + len(datalist["validation"]) == 3
    assert datalist["validation"]
    assert not (tmp_path / "metassl_phantom").exists()
    first = torch.load(bundle / "models" / "model.pt", weights_only=True)
    # annotators go on, and train again, from the network that is there
    train(bundle, datastore, val_split=0.0, max_epochs=2)
    second = torch.load(bundle / "models" / "model.pt", weights_only=True)
    assert any(not torch.equal(value, second[key]) for key, value in first.items())
    assert len((bundle / "history.csv").read_text().splitlines()) == 3


def test_a_mistake_reaches_the_server_as_an_exception(server, tmp_path, monkeypatch):
    datastore, bundle = server
    monkeypatch.chdir(tmp_path)
    next((tmp_path / "studies").glob("*.nii.gz")).write_bytes(b"no image")
    with pytest.raises(RuntimeError) as error:
        train(bundle, datastore)
    assert "no image" in str(user_mistake(error.value)) or "cannot be read" in str(user_mistake(error.value))


def test_monai_label_infers(server, tmp_path, monkeypatch):
    from monailabel.tasks.infer.bundle import BundleInferTask

    datastore, bundle = server
    monkeypatch.chdir(tmp_path)
    parser = ConfigParser()
    parser.read_config(bundle / "configs" / "inference.json")
    network = parser.get_parsed_content("network_def")
    (bundle / "models").mkdir()
    torch.save(network.state_dict(), bundle / "models" / "model.pt")
    task = BundleInferTask(str(bundle), {})
    assert task.is_valid()
    assert task.labels == {"right ventricle": 1, "myocardium": 2, "left ventricle": 3}
    image = datastore.get_image_uri(datastore.list_images()[0])
    result, _ = task({"image": image, "device": "cpu", "result_write_to_file": False})
    assert result.shape[-3:] == nibabel.load(image).shape


def test_the_datalist_of_studies_is_valid_and_keeps_lists_apart():
    pairs = [{"image": f"/data/{x}.nii.gz", "label": f"/data/labels/final/{x}.nii.gz"} for x in "ab"]
    folder, datalist = studies_datalist(pairs[:1], ["/data/c.nii.gz"], pairs[1:], {"0": "background", "1": "aorta"})
    validate_datalist(datalist, "studies")
    assert folder == "/data"
    assert [item["label"] for item in datalist["validation"]] == ["labels/final/b.nii.gz"]
